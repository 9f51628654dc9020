namespace Vmm.Virtio.Devices.Balloon;

/// <summary>What a guest says of its memory: the VIRTIO_BALLOON_S_* tags (VIRTIO 1.3 §5.5.6.4). Bytes where nothing else is said.</summary>
public enum BalloonStatistic
{
    /// <summary>Swapped in.</summary>
    SwapIn = 0,

    /// <summary>Swapped out.</summary>
    SwapOut = 1,

    /// <summary>Page faults that needed the disk.</summary>
    MajorFaults = 2,

    /// <summary>Page faults that did not.</summary>
    MinorFaults = 3,

    /// <summary>Not used for anything.</summary>
    FreeMemory = 4,

    /// <summary>All memory.</summary>
    TotalMemory = 5,

    /// <summary>Available to a new program without swapping.</summary>
    AvailableMemory = 6,

    /// <summary>Caches of files.</summary>
    DiskCaches = 7,

    /// <summary>Huge pages allocated; a count.</summary>
    HugePageAllocations = 8,

    /// <summary>Huge pages that could not be; a count.</summary>
    HugePageFailures = 9,

    /// <summary>Processes killed for want of memory.</summary>
    OomKills = 10,

    /// <summary>Allocations that had to wait; a count.</summary>
    AllocationStalls = 11,

    /// <summary>Pages looked at by the background reclaim.</summary>
    BackgroundScans = 12,

    /// <summary>Pages looked at by allocations.</summary>
    DirectScans = 13,

    /// <summary>Pages reclaimed in the background.</summary>
    BackgroundReclaims = 14,

    /// <summary>Pages reclaimed by allocations.</summary>
    DirectReclaims = 15,
}
