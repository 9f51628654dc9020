using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary><c>--fs tag=TAG,socket=PATH,…</c>: a virtio file system, served by an external back-end such as virtiofsd.</summary>
/// <param name="Tag">What the guest mounts it by: 1 to 36 bytes; null for the tag that the back-end has.</param>
/// <param name="NumQueues">Request queues, beside the one for what has priority: 1 to <see cref="DiskConfig.MaxQueues"/>.</param>
/// <param name="QueueSize">Descriptors of each queue: a power of two from 4 to 1024.</param>
/// <param name="BackEnd">Where it is.</param>
/// <param name="Virtio">Name, bus and layout.</param>
public sealed record FsConfig(string? Tag, int NumQueues, int QueueSize, BackEndOptions BackEnd, VirtioOptions Virtio) : IConfigSection
{
    /// <summary>Bytes of a tag in the configuration space (VIRTIO 1.3 §5.11.4).</summary>
    public const int TagLength = 36;

    /// <summary>The section in files and the environment: a list.</summary>
    public static readonly SectionSchema Section = new("fs", ["tag", "num_queues", "queue_size", .. BackEndOptions.Keys, .. VirtioOptions.Keys], OptionShape.Fields, Repeats: true);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--fs", "tag=TAG[,num_queues=N][,queue_size=N]" + BackEndOptions.Syntax + VirtioOptions.Syntax,
        "A file system that a vhost-user back-end serves (virtiofsd): mount -t virtiofs TAG DIR. Give it once for each.",
        "fs", null, OptionShape.Fields, ["tag=", "num_queues=", "queue_size=", .. BackEndOptions.Words, .. VirtioOptions.Words]);

    /// <summary>Reads and checks one.</summary>
    /// <exception cref="VmmException">A value is wrong or there is no back-end.</exception>
    public static FsConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        string? tag = fields.Text("tag", null);
        if (tag is not null && (System.Text.Encoding.UTF8.GetByteCount(tag) is 0 or > TagLength || tag.Contains('\0', StringComparison.Ordinal)))
            throw OptionFields.Error(fields.Find("tag")!, $"{OptionGrammar.Show($"tag={tag}")} is no tag; those have 1 to {TagLength} bytes.");
        return new FsConfig(
            tag, fields.Number("num_queues", 1, DiskConfig.MaxQueues) ?? 1, DiskConfig.QueueSizeOf(fields, 1024), BackEndOptions.From(fields), VirtioOptions.From(fields));
    }

    void IConfigSection.WriteTo(IConfigWriter writer)
    {
        writer.Text("tag", Tag);
        writer.Number("num_queues", NumQueues);
        writer.Number("queue_size", QueueSize);
        BackEnd.WriteTo(writer);
        Virtio.WriteTo(writer);
    }
}
