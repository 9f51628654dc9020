using System.Runtime.InteropServices;

namespace Vmm.Virtio.Devices.Block;

/// <summary>Feature bits of a block device (VIRTIO 1.3 §5.2.3), as masks.</summary>
public static class BlockFeatures
{
    /// <summary>VIRTIO_BLK_F_SEG_MAX: the most segments of a request are in seg_max.</summary>
    public const ulong SegmentMaximum = 1UL << 2;

    /// <summary>VIRTIO_BLK_F_RO: cannot be written.</summary>
    public const ulong ReadOnly = 1UL << 5;

    /// <summary>VIRTIO_BLK_F_BLK_SIZE: the block size is in blk_size.</summary>
    public const ulong BlockSize = 1UL << 6;

    /// <summary>VIRTIO_BLK_F_FLUSH: flush requests.</summary>
    public const ulong Flush = 1UL << 9;

    /// <summary>VIRTIO_BLK_F_TOPOLOGY: best sizes and alignment are in topology.</summary>
    public const ulong Topology = 1UL << 10;

    /// <summary>VIRTIO_BLK_F_CONFIG_WCE: the driver can turn the cache on and off.</summary>
    public const ulong ConfigWriteCache = 1UL << 11;

    /// <summary>VIRTIO_BLK_F_MQ: the number of queues is in num_queues.</summary>
    public const ulong MultiQueue = 1UL << 12;

    /// <summary>VIRTIO_BLK_F_DISCARD: discard requests.</summary>
    public const ulong Discard = 1UL << 13;

    /// <summary>VIRTIO_BLK_F_WRITE_ZEROES: write zeroes requests.</summary>
    public const ulong WriteZeroes = 1UL << 14;
}

/// <summary>Types of requests (VIRTIO 1.3 §5.2.6).</summary>
public enum BlockRequestType : uint
{
    /// <summary>VIRTIO_BLK_T_IN: read.</summary>
    In = 0,

    /// <summary>VIRTIO_BLK_T_OUT: write.</summary>
    Out = 1,

    /// <summary>VIRTIO_BLK_T_FLUSH: what was written before is kept across a loss of power.</summary>
    Flush = 4,

    /// <summary>VIRTIO_BLK_T_GET_ID: the serial.</summary>
    GetId = 8,

    /// <summary>VIRTIO_BLK_T_DISCARD: the ranges are not needed any more.</summary>
    Discard = 11,

    /// <summary>VIRTIO_BLK_T_WRITE_ZEROES: the ranges read as zeroes.</summary>
    WriteZeroes = 13,
}

/// <summary>How a request ended (VIRTIO 1.3 §5.2.6).</summary>
public enum BlockStatus : byte
{
    /// <summary>VIRTIO_BLK_S_OK.</summary>
    Ok = 0,

    /// <summary>VIRTIO_BLK_S_IOERR.</summary>
    IoError = 1,

    /// <summary>VIRTIO_BLK_S_UNSUPP.</summary>
    Unsupported = 2,
}

/// <summary>The head of every request, struct virtio_blk_req (VIRTIO 1.3 §5.2.6).</summary>
/// <param name="Type">A <see cref="BlockRequestType"/>, or what a driver made up.</param>
/// <param name="Reserved">Nothing.</param>
/// <param name="Sector">Where it begins, in units of 512 bytes.</param>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
public readonly record struct BlockRequestHeader(uint Type, uint Reserved, ulong Sector)
{
    /// <summary>Bytes of it.</summary>
    public const int Length = 16;
}

/// <summary>A range of a discard or write zeroes request, struct virtio_blk_discard_write_zeroes (VIRTIO 1.3 §5.2.6).</summary>
/// <param name="Sector">Where it begins, in units of 512 bytes.</param>
/// <param name="Sectors">How long it is, in units of 512 bytes.</param>
/// <param name="Flags">Bit 0: unmap. The others are reserved.</param>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
public readonly record struct BlockRange(ulong Sector, uint Sectors, uint Flags)
{
    /// <summary>Bytes of it.</summary>
    public const int Length = 16;

    /// <summary>The device may give the space back, as long as it reads as zeroes.</summary>
    public const uint Unmap = 1;
}

/// <summary>struct virtio_blk_config (VIRTIO 1.3 §5.2.4), up to the fields of features that are not offered.</summary>
/// <remarks>All are little-endian; the guests of this program are too.</remarks>
[StructLayout(LayoutKind.Explicit, Size = Length)]
public struct BlockConfigurationSpace
{
    /// <summary>Bytes of it.</summary>
    public const int Length = 60;

    /// <summary>Where <see cref="WriteBack"/> is: the one field that a driver may write.</summary>
    public const int WriteBackOffset = 32;

    /// <summary>capacity, in units of 512 bytes.</summary>
    [FieldOffset(0)] public ulong Capacity;

    /// <summary>size_max; not offered.</summary>
    [FieldOffset(8)] public uint SizeMaximum;

    /// <summary>seg_max: the most segments of data of a request.</summary>
    [FieldOffset(12)] public uint SegmentMaximum;

    /// <summary>blk_size in bytes.</summary>
    [FieldOffset(20)] public uint BlockSize;

    /// <summary>topology.physical_block_exp: log2 of logical blocks per physical block.</summary>
    [FieldOffset(24)] public byte PhysicalBlockExponent;

    /// <summary>topology.alignment_offset: the first aligned logical block.</summary>
    [FieldOffset(25)] public byte AlignmentOffset;

    /// <summary>topology.min_io_size in logical blocks.</summary>
    [FieldOffset(26)] public ushort MinimumIoSize;

    /// <summary>topology.opt_io_size in logical blocks.</summary>
    [FieldOffset(28)] public uint OptimalIoSize;

    /// <summary>writeback: 0 for write-through, 1 for write-back.</summary>
    [FieldOffset(32)] public byte WriteBack;

    /// <summary>num_queues.</summary>
    [FieldOffset(34)] public ushort NumQueues;

    /// <summary>max_discard_sectors of one range.</summary>
    [FieldOffset(36)] public uint MaximumDiscardSectors;

    /// <summary>max_discard_seg: ranges of one request.</summary>
    [FieldOffset(40)] public uint MaximumDiscardRanges;

    /// <summary>discard_sector_alignment, in units of 512 bytes.</summary>
    [FieldOffset(44)] public uint DiscardSectorAlignment;

    /// <summary>max_write_zeroes_sectors of one range.</summary>
    [FieldOffset(48)] public uint MaximumWriteZeroesSectors;

    /// <summary>max_write_zeroes_seg: ranges of one request.</summary>
    [FieldOffset(52)] public uint MaximumWriteZeroesRanges;

    /// <summary>write_zeroes_may_unmap: whether write zeroes with unmap gives space back.</summary>
    [FieldOffset(56)] public byte WriteZeroesMayUnmap;
}
