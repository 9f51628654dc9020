using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Vmm.Virtio.VhostUser.Protocol;

/// <summary>"VirtIO Shared Memory Region configuration": 2056 bytes.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal struct SharedMemoryConfiguration
{
    /// <summary>How many sizes are not 0.</summary>
    public uint Count;

    /// <summary>0.</summary>
    public uint Padding;

    /// <summary>Bytes of each region, by its id; 0 where there is none.</summary>
    public SharedMemorySizes Sizes;
}

/// <summary>One size for each id that there can be.</summary>
[InlineArray(256)]
internal struct SharedMemorySizes
{
    private ulong _first;
}

/// <summary>"struct VhostUserMMap": 40 bytes, of SHMEM_MAP and SHMEM_UNMAP.</summary>
/// <param name="RegionAndPadding">The region's id in the lowest byte; the others are padding.</param>
/// <param name="FileOffset">The first byte in the file.</param>
/// <param name="Offset">The first byte in the region.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Flags">Bit 0: writable.</param>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct SharedMemoryMapping(ulong RegionAndPadding, ulong FileOffset, ulong Offset, ulong Length, ulong Flags)
{
    /// <summary>VHOST_USER_FLAG_MAP_RW.</summary>
    public const ulong Writable = 1;

    /// <summary>The region's id.</summary>
    public byte Region => (byte)RegionAndPadding;
}
