using Vmm.Core;
using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Devices.Block;

/// <summary>Zeroes to write where the host cannot zero a range itself: the kernel's one page of them, mapped many times.</summary>
internal static unsafe class ZeroPages
{
    /// <summary>Bytes.</summary>
    public const int Length = 1024 * 1024;

    private static readonly HostMapping _memory = HostMapping.TryMap(Length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS)
        ?? throw VmmException.Host("Cannot map memory for a disk: the process has too little address space (ulimit -v).");

    /// <summary>The first; aligned to a page.</summary>
    public static byte* Address => _memory.Address;
}
