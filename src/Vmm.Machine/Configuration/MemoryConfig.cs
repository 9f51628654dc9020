using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary><c>--memory size=SIZE,shared=on|off,hugepages=on|off,hugepage_size=2M|1G,prefault=on|off</c>: the guest's RAM.</summary>
/// <param name="Size">In bytes: <see cref="Least"/> to <see cref="Most"/>, whole pages.</param>
/// <param name="Shared">Whether the memory is a memfd mapped shared, as vhost-user back-ends need it.</param>
/// <param name="HugePages">Whether it comes from the host's reserved huge pages.</param>
/// <param name="HugePageSize">The size of those in bytes, 2 MiB or 1 GiB; means nothing without them.</param>
/// <param name="Prefault">Whether all of it is touched before the guest starts.</param>
/// <param name="HotplugSize">Bytes that can be plugged in while the guest runs (virtio-mem); whole blocks of <see cref="HotplugUnit"/>.</param>
/// <param name="HotpluggedSize">Bytes of those that the guest is asked to plug in from the start.</param>
public sealed record MemoryConfig(
    ulong Size = 512 * ByteSize.MiB,
    bool Shared = false,
    bool HugePages = false,
    ulong HugePageSize = 2 * ByteSize.MiB,
    bool Prefault = false,
    ulong HotplugSize = 0,
    ulong HotpluggedSize = 0) : IConfigSection
{
    /// <summary>The least memory: less does not hold a distribution's kernel and its initramfs.</summary>
    public const ulong Least = 64 * ByteSize.MiB;

    /// <summary>The most: what 46 physical address bits reach, the width that is common on x86 servers.</summary>
    public const ulong Most = 64 * ByteSize.TiB;

    /// <summary>The unit in which memory is plugged in, in bytes.</summary>
    public const ulong HotplugUnit = 2 * ByteSize.MiB;

    private const ulong PageSize = 4 * ByteSize.KiB;

    /// <summary>The section in files and the environment.</summary>
    public static readonly SectionSchema Section = new(
        "memory", ["size", "shared", "hugepages", "hugepage_size", "prefault", "hotplug_size", "hotplugged_size"], OptionShape.Fields);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--memory", "size=SIZE[,shared=on|off][,hugepages=on|off][,hugepage_size=2M|1G][,prefault=on|off][,hotplug_size=SIZE[,hotplugged_size=SIZE]]",
        "The guest's memory; K, M and G are powers of 1024. hotplug_size is what can be added while it runs (virtio-mem). Default: size=512M, the rest off.",
        "memory", null, OptionShape.Fields,
        ["size=", "shared=on", "shared=off", "hugepages=on", "hugepages=off", "hugepage_size=2M", "hugepage_size=1G", "prefault=on", "prefault=off", "hotplug_size=", "hotplugged_size="]);

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
            fields.Flag("prefault", false),
            fields.Size("hotplug_size", 0, 0, Most),
            fields.Size("hotplugged_size", 0, 0, Most));

        if (config.HugePageSize is not (2 * ByteSize.MiB or ByteSize.GiB))
        {
            throw VmmException.Configuration(
                $"{fields.OriginOf("hugepage_size")}: 'hugepage_size={ByteSize.Format(config.HugePageSize)}' is no size of huge pages; x86 has 2M and 1G.");
        }

        if (!config.HugePages && fields.Find("hugepage_size") is { } size)
            throw OptionFields.Error(size, "hugepage_size means nothing without hugepages=on; add that or leave it out.");

        CheckHotplug(config, fields);
        ulong page = config.HugePages ? config.HugePageSize : PageSize;
        if (config.Size % page != 0)
        {
            throw VmmException.Configuration(
                $"{fields.OriginOf("size")}: 'size={ByteSize.Format(config.Size)}' is not a multiple of {ByteSize.Format(page)}, the size of its pages.");
        }

        return config;
    }

    private static void CheckHotplug(MemoryConfig config, OptionFields fields)
    {
        foreach ((string key, ulong size) in new[] { ("hotplug_size", config.HotplugSize), ("hotplugged_size", config.HotpluggedSize) })
        {
            if (size % HotplugUnit != 0)
                throw VmmException.Configuration($"{fields.OriginOf(key)}: '{key}={ByteSize.Format(size)}' is not a multiple of 2M, the unit of plugging memory in.");
        }
        if (config.HotpluggedSize > config.HotplugSize)
        {
            throw VmmException.Configuration(
                $"{fields.OriginOf("hotplugged_size")}: 'hotplugged_size={ByteSize.Format(config.HotpluggedSize)}' is more than hotplug_size={ByteSize.Format(config.HotplugSize)}; raise that.");
        }
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
    public string ToOptionText() => OptionTextWriter.Of(this);

    void IConfigSection.WriteTo(IConfigWriter writer)
    {
        writer.Size("size", Size);
        writer.Flag("shared", Shared);
        writer.Flag("hugepages", HugePages);
        if (HugePages)
            writer.Size("hugepage_size", HugePageSize);
        writer.Flag("prefault", Prefault);
        if (HotplugSize == 0)
            return;
        writer.Size("hotplug_size", HotplugSize);
        writer.Size("hotplugged_size", HotpluggedSize);
    }
}
