using System.Runtime.InteropServices;

namespace Vmm.Virtio.Devices.Pmem;

/// <summary>The persistent memory device (VIRTIO 1.3 §5.19).</summary>
internal static class PmemProtocol
{
    /// <summary>req_vq (§5.19.2).</summary>
    internal const int RequestQueue = 0;

    /// <summary>VIRTIO_PMEM_F_SHMEM_REGION (§5.19.3): the range is shared memory region 0, not what the configuration space says.</summary>
    internal const ulong SharedMemoryRegion = 1UL << 0;

    /// <summary>The id of that region (§5.19.4).</summary>
    internal const byte RegionId = 0;

    /// <summary>VIRTIO_PMEM_REQ_TYPE_FLUSH (§5.19.6).</summary>
    internal const uint RequestFlush = 0;

    /// <summary>ret of a request that was done (§5.19.7).</summary>
    internal const uint ResultOk = 0;

    /// <summary>ret of one that failed; drivers ask only whether it is zero.</summary>
    internal const uint ResultFailed = 1;
}

/// <summary>struct virtio_pmem_config (§5.19.4).</summary>
/// <param name="Start">Guest-physical address of the first byte.</param>
/// <param name="Size">Bytes.</param>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct PmemConfiguration(ulong Start, ulong Size)
{
    /// <summary>Its size in bytes.</summary>
    internal const int Length = 16;
}
