using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary><c>--io-threads count=N,affinity=[…]</c>: the threads that serve the queues of virtio devices.</summary>
/// <param name="Count">How many: 1 to <see cref="Limit"/>. Queues are given to them in turn.</param>
/// <param name="Affinity">Where they run.</param>
public sealed record IoThreadsConfig(int Count, ConfigList<CpuAffinity> Affinity) : IConfigSection
{
    /// <summary>More than this is a typing error.</summary>
    public const int Limit = 256;

    /// <summary>One thread, anywhere.</summary>
    public static readonly IoThreadsConfig Default = new(1, ConfigList<CpuAffinity>.Empty);

    /// <summary>The section in files and the environment.</summary>
    public static readonly SectionSchema Section = new("io_threads", ["count", "affinity"], OptionShape.Fields);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--io-threads", "count=N[,affinity=[THREAD@CPUS,…]]",
        "Threads that serve the queues of virtio devices, in turn, and the host's processors that they run on (0@0-3+6). Default: count=1.",
        "io_threads", null, OptionShape.Fields, ["count=", "affinity="]);

    /// <summary>Reads and checks the section.</summary>
    /// <exception cref="VmmException">A value is wrong.</exception>
    public static IoThreadsConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        int count = fields.Number("count", 1, Limit) ?? 1;
        return new IoThreadsConfig(count, CpuAffinity.From(fields, "affinity", "I/O thread", count));
    }

    void IConfigSection.WriteTo(IConfigWriter writer)
    {
        writer.Number("count", Count);
        writer.List("affinity", CpuAffinity.ToItems(Affinity));
    }
}
