using System.Runtime.InteropServices;

namespace Vmm.Virtio.Devices.Mem;

/// <summary>The memory device (VIRTIO 1.3 §5.15).</summary>
internal static class MemProtocol
{
    /// <summary>guest-request (§5.15.2).</summary>
    internal const int RequestQueue = 0;

    /// <summary>
    /// VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE (§5.15.3): the driver does not touch unplugged memory. Offered, not demanded: an older driver
    /// that looks there (for a crash dump) reads zeros.
    /// </summary>
    internal const ulong UnpluggedInaccessible = 1UL << 1;
}

/// <summary>type of struct virtio_mem_req (§5.15.6).</summary>
internal enum MemRequestType : ushort
{
    /// <summary>VIRTIO_MEM_REQ_PLUG.</summary>
    Plug = 0,

    /// <summary>VIRTIO_MEM_REQ_UNPLUG.</summary>
    Unplug = 1,

    /// <summary>VIRTIO_MEM_REQ_UNPLUG_ALL.</summary>
    UnplugAll = 2,

    /// <summary>VIRTIO_MEM_REQ_STATE.</summary>
    State = 3,
}

/// <summary>type of struct virtio_mem_resp (§5.15.6).</summary>
internal enum MemResponseType : ushort
{
    /// <summary>VIRTIO_MEM_RESP_ACK: done.</summary>
    Ack = 0,

    /// <summary>VIRTIO_MEM_RESP_NACK: not now; more than was requested would be plugged.</summary>
    Nack = 1,

    /// <summary>VIRTIO_MEM_RESP_BUSY: try again later.</summary>
    Busy = 2,

    /// <summary>VIRTIO_MEM_RESP_ERROR: the request is wrong.</summary>
    Error = 3,
}

/// <summary>state of struct virtio_mem_resp_state (§5.15.6).</summary>
internal enum MemBlockState : ushort
{
    /// <summary>VIRTIO_MEM_STATE_PLUGGED: all are.</summary>
    Plugged = 0,

    /// <summary>VIRTIO_MEM_STATE_UNPLUGGED: none is.</summary>
    Unplugged = 1,

    /// <summary>VIRTIO_MEM_STATE_MIXED.</summary>
    Mixed = 2,
}

/// <summary>struct virtio_mem_req (§5.15.6): 24 bytes, the same for every type.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct MemRequest(MemRequestType Type, ushort Padding0, uint Padding1, ulong Address, ushort BlockCount, ushort Padding2, uint Padding3)
{
    internal MemRequest(MemRequestType type, ulong address = 0, ushort blockCount = 0) : this(type, 0, 0, address, blockCount, 0, 0)
    {
    }
}

/// <summary>struct virtio_mem_resp (§5.15.6): 10 bytes.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct MemResponse(MemResponseType Type, ushort Padding0, uint Padding1, MemBlockState State)
{
    internal MemResponse(MemResponseType type, MemBlockState state = default) : this(type, 0, 0, state)
    {
    }
}

/// <summary>struct virtio_mem_config (§5.15.4).</summary>
/// <param name="BlockSize">block_size, bytes.</param>
/// <param name="NodeId">node_id; means something with VIRTIO_MEM_F_ACPI_PXM only, which is not offered.</param>
/// <param name="Padding0">Zero.</param>
/// <param name="Padding1">Zero.</param>
/// <param name="Address">addr: guest-physical start of the region.</param>
/// <param name="RegionSize">region_size, bytes: the most that there can ever be.</param>
/// <param name="UsableRegionSize">usable_region_size, bytes: how much of it the driver may ask for now.</param>
/// <param name="PluggedSize">plugged_size, bytes.</param>
/// <param name="RequestedSize">requested_size, bytes: what the driver shall make plugged_size become.</param>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct MemConfiguration(
    ulong BlockSize, ushort NodeId, ushort Padding0, uint Padding1, ulong Address, ulong RegionSize, ulong UsableRegionSize, ulong PluggedSize, ulong RequestedSize)
{
    /// <summary>Its size in bytes.</summary>
    internal const int Length = 56;
}
