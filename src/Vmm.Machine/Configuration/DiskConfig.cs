using System.Numerics;
using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary>How a disk's requests reach the host's kernel.</summary>
public enum DiskEngine
{
    /// <summary>io_uring where the host has it, else calls one by one.</summary>
    Auto,

    /// <summary>io_uring; an error where the host has none.</summary>
    IoUring,

    /// <summary>preadv and pwritev, one at a time.</summary>
    Sync,
}

/// <summary><c>--disk path=PATH,…</c>: a virtio block device on a raw image file or a block device.</summary>
/// <param name="Path">The image.</param>
/// <param name="ReadOnly">The guest cannot write to it, and others may read it meanwhile.</param>
/// <param name="Direct">Bypasses the host's page cache (O_DIRECT).</param>
/// <param name="NumQueues">Request queues: 1 to <see cref="MaxQueues"/>.</param>
/// <param name="QueueSize">Descriptors of each queue: a power of two from 4 to 1024.</param>
/// <param name="Serial">What the guest reads as the disk's serial number: at most 20 bytes; null for the id.</param>
/// <param name="Engine">How requests reach the kernel.</param>
/// <param name="Limits">Rate limits.</param>
/// <param name="Virtio">Name, bus and layout.</param>
public sealed record DiskConfig(
    string Path, bool ReadOnly, bool Direct, int NumQueues, int QueueSize, string? Serial, DiskEngine Engine, RateLimitOptions Limits, VirtioOptions Virtio)
    : IConfigSection
{
    /// <summary>The most queues of a device.</summary>
    public const int MaxQueues = 64;

    private static readonly (string Word, DiskEngine Value)[] s_engines = [("auto", DiskEngine.Auto), ("io_uring", DiskEngine.IoUring), ("sync", DiskEngine.Sync)];

    /// <summary>The section in files and the environment: a list.</summary>
    public static readonly SectionSchema Section = new(
        "disks", ["path", "readonly", "direct", "num_queues", "queue_size", "serial", "engine", .. TokenBucketOptions.Keys, .. VirtioOptions.Keys],
        OptionShape.Fields, Repeats: true);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--disk",
        "path=PATH[,readonly=on|off][,direct=on|off][,num_queues=N][,queue_size=N][,serial=TEXT][,engine=auto|io_uring|sync]" +
        TokenBucketOptions.Syntax + VirtioOptions.Syntax,
        "A disk: a raw image or a block device. Give it once for each; they are vda, vdb and so on.",
        "disks", null, OptionShape.Fields,
        ["path=", "readonly=on", "direct=on", "num_queues=", "queue_size=", "serial=", "engine=auto", "engine=io_uring", "engine=sync", .. TokenBucketOptions.Words, .. VirtioOptions.Words]);

    /// <summary>Reads and checks one disk.</summary>
    /// <exception cref="VmmException">A value is wrong or the path is missing.</exception>
    public static DiskConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        string path = fields.Path("path") ?? throw VmmException.Configuration($"{fields.Origin}: there is no path; write path=IMAGE.");
        string? serial = fields.Text("serial", null);
        if (serial is not null && System.Text.Encoding.UTF8.GetByteCount(serial) > 20)
            throw OptionFields.Error(fields.Find("serial")!, $"{OptionGrammar.Show($"serial={serial}")} is longer than the 20 bytes that a guest reads.");
        return new DiskConfig(
            path, fields.Flag("readonly", false), fields.Flag("direct", false), fields.Number("num_queues", 1, MaxQueues) ?? 1,
            QueueSizeOf(fields, 128), serial, fields.Word("engine", DiskEngine.Auto, s_engines), RateLimitOptions.From(fields), VirtioOptions.From(fields));
    }

    void IConfigSection.WriteTo(IConfigWriter writer)
    {
        writer.Text("path", Path);
        writer.Flag("readonly", ReadOnly);
        writer.Flag("direct", Direct);
        writer.Number("num_queues", NumQueues);
        writer.Number("queue_size", QueueSize);
        writer.Text("serial", Serial);
        writer.Text("engine", s_engines[(int)Engine].Word);
        Limits.WriteTo(writer);
        Virtio.WriteTo(writer);
    }

    internal static int QueueSizeOf(OptionFields fields, int otherwise)
    {
        int size = fields.Number("queue_size", 4, 1024) ?? otherwise;
        if (!BitOperations.IsPow2(size))
            throw OptionFields.Error(fields.Find("queue_size")!, $"'queue_size={size}' is not a power of two (VIRTIO has no others).");
        return size;
    }
}
