namespace Vmm.Virtio.Devices.Balloon;

/// <summary>The traditional memory balloon (VIRTIO 1.3 §5.5).</summary>
internal static class BalloonProtocol
{
    /// <summary>VIRTIO_BALLOON_F_STATS_VQ (§5.5.3): the driver reports statistics.</summary>
    internal const ulong StatsQueueFeature = 1UL << 1;

    /// <summary>VIRTIO_BALLOON_F_DEFLATE_ON_OOM (§5.5.3): the driver takes pages back when it runs out of memory.</summary>
    internal const ulong DeflateOnOom = 1UL << 2;

    /// <summary>VIRTIO_BALLOON_F_PAGE_REPORTING (§5.5.3): the driver reports pages that are free.</summary>
    internal const ulong PageReporting = 1UL << 5;

    /// <summary>Queues, by the numbers that §5.5.2 gives them.</summary>
    internal const int InflateQueue = 0, DeflateQueue = 1, StatsQueue = 2, FreePageQueue = 3, ReportingQueue = 4;

    internal const int QueueCount = 5;

    /// <summary>Bytes of a balloon page, whatever the guest's own pages are (§5.5.6): its number is the address divided by it.</summary>
    internal const int PageSize = 4096;

    internal const int PageShift = 12;

    /// <summary>Offset of num_pages in the configuration space (§5.5.4): pages that the device wants in the balloon.</summary>
    internal const int NumPagesOffset = 0;

    /// <summary>Offset of actual: pages that are in it. The driver writes it.</summary>
    internal const int ActualOffset = 4;

    /// <summary>Bytes of the configuration space: the fields behind belong to features that are not offered.</summary>
    internal const int ConfigurationLength = 8;

    /// <summary>
    /// What a queue is for. Without the free page hint, which is not offered, queue 3 does not exist; drivers of many years number the
    /// queues that exist without a gap, against §5.5.2, so the reporting queue has two numbers, and a third without statistics.
    /// </summary>
    internal static BalloonQueueRole RoleOf(int queue, ulong features) => queue switch
    {
        InflateQueue => BalloonQueueRole.Inflate,
        DeflateQueue => BalloonQueueRole.Deflate,
        StatsQueue when (features & StatsQueueFeature) != 0 => BalloonQueueRole.Statistics,
        _ => (features & PageReporting) != 0 ? BalloonQueueRole.Reporting : BalloonQueueRole.None,
    };
}
