using System.Runtime.InteropServices;

namespace Vmm.Virtio.VhostUser.Protocol;

/// <summary>"Memory region description": 32 bytes.</summary>
/// <param name="GuestAddress">Guest-physical.</param>
/// <param name="Size">Bytes.</param>
/// <param name="UserAddress">What ring addresses in this region are counted from.</param>
/// <param name="MmapOffset">Where it begins in its file.</param>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct MemoryRegion(ulong GuestAddress, ulong Size, ulong UserAddress, ulong MmapOffset);

/// <summary>"Single memory region description": 40 bytes, of ADD_MEM_REG and REM_MEM_REG.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct SingleMemoryRegion(ulong Padding, MemoryRegion Region);

/// <summary>"Log description": 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct LogDescription(ulong Size, ulong Offset);

/// <summary>"Inflight description": 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct InflightDescription(ulong Size, ulong Offset, ushort QueueCount, ushort QueueSize, uint Padding);

/// <summary>"Memory regions description": its head, before at most <see cref="MaximumRegions"/> regions.</summary>
/// <param name="Count">How many regions follow.</param>
/// <param name="Padding">0.</param>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct MemoryTableHead(uint Count, uint Padding)
{
    /// <summary>VHOST_MEMORY_BASELINE_NREGIONS.</summary>
    public const int MaximumRegions = 8;
}
