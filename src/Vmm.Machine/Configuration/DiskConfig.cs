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

/// <summary><c>--disk path=PATH,…</c>: a virtio block device on a raw image file or a block device, or of an external back-end.</summary>
/// <param name="Path">The image; empty with a back-end.</param>
/// <param name="ReadOnly">The guest cannot write to it, and others may read it meanwhile.</param>
/// <param name="Direct">Bypasses the host's page cache (O_DIRECT).</param>
/// <param name="NumQueues">Request queues: 1 to <see cref="MaxQueues"/>.</param>
/// <param name="QueueSize">Descriptors of each queue: a power of two from 4 to 1024.</param>
/// <param name="Serial">What the guest reads as the disk's serial number: at most 20 bytes; null for the id.</param>
/// <param name="Engine">How requests reach the kernel.</param>
/// <param name="Limits">Rate limits.</param>
/// <param name="BackEnd">The external back-end that serves it; null for none.</param>
/// <param name="Virtio">Name, bus and layout.</param>
public sealed record DiskConfig(
    string Path, bool ReadOnly, bool Direct, int NumQueues, int QueueSize, string? Serial, DiskEngine Engine, RateLimitOptions Limits, BackEndOptions? BackEnd, VirtioOptions Virtio)
    : IConfigSection
{
    /// <summary>The most queues of a device.</summary>
    public const int MaxQueues = 64;

    private static readonly (string Word, DiskEngine Value)[] s_engines = [("auto", DiskEngine.Auto), ("io_uring", DiskEngine.IoUring), ("sync", DiskEngine.Sync)];

    /// <summary>The section in files and the environment: a list.</summary>
    public static readonly SectionSchema Section = new(
        "disks", ["path", "readonly", "direct", "num_queues", "queue_size", "serial", "engine", .. TokenBucketOptions.Keys, "vhost_user", .. BackEndOptions.Keys, .. VirtioOptions.Keys],
        OptionShape.Fields, Repeats: true);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--disk",
        "path=PATH[,readonly=on|off][,direct=on|off][,num_queues=N][,queue_size=N][,serial=TEXT][,engine=auto|io_uring|sync]" +
        TokenBucketOptions.Syntax + " | vhost_user=on[,num_queues=N][,queue_size=N]" + BackEndOptions.Syntax + VirtioOptions.Syntax,
        "A disk: a raw image or a block device, or one that a vhost-user back-end serves. Give it once for each; they are vda, vdb and so on.",
        "disks", null, OptionShape.Fields,
        ["path=", "readonly=on", "direct=on", "num_queues=", "queue_size=", "serial=", "engine=auto", "engine=io_uring", "engine=sync", .. TokenBucketOptions.Words, "vhost_user=on", .. BackEndOptions.Words, .. VirtioOptions.Words]);

    /// <summary>Reads and checks one disk.</summary>
    /// <exception cref="VmmException">A value is wrong or the path is missing.</exception>
    public static DiskConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        if (fields.Flag("vhost_user", false))
            return OfBackEnd(fields);
        BackEndOptions.RefuseWithout(fields);
        string path = fields.Path("path") ?? throw VmmException.Configuration($"{fields.Origin}: there is no path; write path=IMAGE.");
        string? serial = fields.Text("serial", null);
        if (serial is not null && System.Text.Encoding.UTF8.GetByteCount(serial) > 20)
            throw OptionFields.Error(fields.Find("serial")!, $"{OptionGrammar.Show($"serial={serial}")} is longer than the 20 bytes that a guest reads.");
        return new DiskConfig(
            path, fields.Flag("readonly", false), fields.Flag("direct", false), fields.Number("num_queues", 1, MaxQueues) ?? 1,
            QueueSizeOf(fields, 128), serial, fields.Word("engine", DiskEngine.Auto, s_engines), RateLimitOptions.From(fields), null, VirtioOptions.From(fields));
    }

    void IConfigSection.WriteTo(IConfigWriter writer)
    {
        if (BackEnd is not null)
        {
            writer.Flag("vhost_user", true);
            writer.Number("num_queues", NumQueues);
            writer.Number("queue_size", QueueSize);
            BackEnd.WriteTo(writer);
            Virtio.WriteTo(writer);
            return;
        }
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

    private static DiskConfig OfBackEnd(OptionFields fields)
    {
        BackEndOptions.Refuse(fields, ["path", "readonly", "direct", "serial", "engine", .. TokenBucketOptions.Keys]);
        return new DiskConfig(
            "", ReadOnly: false, Direct: false, fields.Number("num_queues", 1, MaxQueues) ?? 1, QueueSizeOf(fields, 128), null, DiskEngine.Auto,
            RateLimitOptions.From(fields), BackEndOptions.From(fields), VirtioOptions.From(fields));
    }

    internal static int QueueSizeOf(OptionFields fields, int otherwise)
    {
        int size = fields.Number("queue_size", 4, 1024) ?? otherwise;
        if (!BitOperations.IsPow2(size))
            throw OptionFields.Error(fields.Find("queue_size")!, $"'queue_size={size}' is not a power of two (VIRTIO has no others).");
        return size;
    }
}
