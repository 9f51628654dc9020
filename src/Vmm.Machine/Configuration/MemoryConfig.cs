using System.Text;
using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary><c>--memory size=SIZE,shared=on|off,hugepages=on|off,hugepage_size=2M|1G,prefault=on|off</c>: the guest's RAM.</summary>
/// <param name="Size">In bytes: <see cref="Least"/> to <see cref="Most"/>, whole pages.</param>
/// <param name="Shared">Whether the memory is a memfd mapped shared, as vhost-user back-ends need it.</param>
/// <param name="HugePages">Whether it comes from the host's reserved huge pages.</param>
/// <param name="HugePageSize">The size of those in bytes, 2 MiB or 1 GiB; means nothing without them.</param>
/// <param name="Prefault">Whether all of it is touched before the guest starts.</param>
public sealed record MemoryConfig(
    ulong Size = 512 * ByteSize.MiB,
    bool Shared = false,
    bool HugePages = false,
    ulong HugePageSize = 2 * ByteSize.MiB,
    bool Prefault = false)
{
    /// <summary>The least memory: less does not hold a distribution's kernel and its initramfs.</summary>
    public const ulong Least = 64 * ByteSize.MiB;

    /// <summary>The most: what 46 physical address bits reach, the width that is common on x86 servers.</summary>
    public const ulong Most = 64 * ByteSize.TiB;

    private const ulong PageSize = 4 * ByteSize.KiB;

    /// <summary>The section in files and the environment.</summary>
    public static readonly SectionSchema Section = new(
        "memory", ["size", "shared", "hugepages", "hugepage_size", "prefault"], OptionShape.Fields);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--memory", "size=SIZE[,shared=on|off][,hugepages=on|off][,hugepage_size=2M|1G][,prefault=on|off]",
        "The guest's memory; K, M and G are powers of 1024. Default: size=512M, the rest off.",
        "memory", null, OptionShape.Fields,
        ["size=", "shared=on", "shared=off", "hugepages=on", "hugepages=off", "hugepage_size=2M", "hugepage_size=1G", "prefault=on", "prefault=off"]);

    /// <summary>Reads and checks the section.</summary>
    /// <exception cref="VmmException">A value is wrong, or they do not fit together.</exception>
    public static MemoryConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        var config = new MemoryConfig(
            fields.Size("size", 512 * ByteSize.MiB, Least, Most),
            fields.Flag("shared", false),
            fields.Flag("hugepages", false),
            fields.Size("hugepage_size", 2 * ByteSize.MiB, 1, ByteSize.GiB),
            fields.Flag("prefault", false));

        if (config.HugePageSize is not (2 * ByteSize.MiB or ByteSize.GiB))
        {
            throw VmmException.Configuration(
                $"{fields.OriginOf("hugepage_size")}: 'hugepage_size={ByteSize.Format(config.HugePageSize)}' is no size of huge pages; x86 has 2M and 1G.");
        }

        if (!config.HugePages && fields.Find("hugepage_size") is { } size)
            throw OptionFields.Error(size, "hugepage_size means nothing without hugepages=on; add that or leave it out.");

        ulong page = config.HugePages ? config.HugePageSize : PageSize;
        if (config.Size % page != 0)
        {
            throw VmmException.Configuration(
                $"{fields.OriginOf("size")}: 'size={ByteSize.Format(config.Size)}' is not a multiple of {ByteSize.Format(page)}, the size of its pages.");
        }

        return config;
    }

    /// <summary>Refuses more memory than the host has; a pure function of what the host has.</summary>
    /// <param name="hostBytes">The host's whole memory in bytes (MemTotal of /proc/meminfo).</param>
    /// <exception cref="VmmException">The guest's memory is larger.</exception>
    public void CheckAgainstHost(ulong hostBytes)
    {
        if (Size > hostBytes)
        {
            throw VmmException.Configuration(
                $"--memory: size={ByteSize.Format(Size)} is more than this host's memory of {hostBytes / ByteSize.MiB}M; ask for less.");
        }
    }

    /// <summary>The argument of <c>--memory</c> that says the same.</summary>
    public string ToOptionText()
    {
        var text = new StringBuilder($"size={ByteSize.Format(Size)},shared={OnOff(Shared)},hugepages={OnOff(HugePages)}");
        if (HugePages)
            text.Append($",hugepage_size={ByteSize.Format(HugePageSize)}");
        return text.Append($",prefault={OnOff(Prefault)}").ToString();
    }

    private static string OnOff(bool value) => value ? "on" : "off";
}
