using Vmm.Core;

namespace Vmm.Virtio.Devices.Mem;

/// <summary>Memory that can be plugged into a running guest and out again.</summary>
/// <param name="HotplugSize">The most that can be plugged, in bytes; a multiple of <see cref="BlockSize"/>, above 0.</param>
/// <param name="HotpluggedSize">What the guest is asked to plug when it starts, in bytes; the same multiple, at most <paramref name="HotplugSize"/>.</param>
/// <param name="Id">The name that people gave it.</param>
public sealed record MemConfig(ulong HotplugSize, ulong HotpluggedSize = 0, string Id = "mem0")
{
    /// <summary>
    /// The unit that is plugged, in bytes: a large page of x86, so that plugging and unplugging never splits one of the host's, and what
    /// Linux can take out of its page allocator in one piece.
    /// </summary>
    public const ulong BlockSize = 2UL << 20;

    /// <summary>The most that can be asked for, in bytes: a bitmap of 4 MiB.</summary>
    public const ulong MaximumHotplugSize = 64UL << 40;

    /// <summary>Checks the values.</summary>
    /// <exception cref="VmmException">One is wrong.</exception>
    public void Validate()
    {
        if (HotplugSize == 0 || HotplugSize % BlockSize != 0 || HotplugSize > MaximumHotplugSize)
            throw VmmException.Configuration($"Cannot plug {HotplugSize} bytes of memory into the guest: hotplug_size= must be a multiple of 2M, from 2M to 64T.");
        CheckRequestedSize(HotpluggedSize, HotplugSize, "hotplugged_size=");
    }

    /// <summary>Refuses a size that a guest cannot be asked for.</summary>
    internal static void CheckRequestedSize(ulong size, ulong most, string option)
    {
        if (size % BlockSize != 0)
            throw VmmException.Configuration($"Cannot ask the guest to have {size} bytes of memory plugged: {option} must be a multiple of 2M.");
        if (size > most)
            throw VmmException.Configuration($"Cannot ask the guest to have {size >> 20}M of memory plugged: there is room for {most >> 20}M (hotplug_size=).");
    }
}
