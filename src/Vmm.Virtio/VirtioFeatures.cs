namespace Vmm.Virtio;

/// <summary>Feature bits that do not belong to one device type (VIRTIO 1.3 §6), as masks.</summary>
public static class VirtioFeatures
{
    /// <summary>VIRTIO_F_INDIRECT_DESC: descriptors may refer to tables (§2.7.5.3, §2.8.7).</summary>
    public const ulong IndirectDescriptors = 1UL << 28;

    /// <summary>VIRTIO_F_EVENT_IDX: notifications are suppressed up to an index (§2.7.7, §2.8.10).</summary>
    public const ulong EventIndex = 1UL << 29;

    /// <summary>VIRTIO_F_VERSION_1: not a legacy device. A driver that does not accept it is refused.</summary>
    public const ulong Version1 = 1UL << 32;

    /// <summary>VIRTIO_F_ACCESS_PLATFORM: addresses are translated by the platform. Not offered.</summary>
    public const ulong AccessPlatform = 1UL << 33;

    /// <summary>VIRTIO_F_RING_PACKED (§2.8).</summary>
    public const ulong RingPacked = 1UL << 34;

    /// <summary>VIRTIO_F_IN_ORDER: buffers are used in the order in which they were made available.</summary>
    public const ulong InOrder = 1UL << 35;

    /// <summary>VIRTIO_F_NOTIFICATION_DATA: the doorbell carries the ring's position.</summary>
    public const ulong NotificationData = 1UL << 38;

    /// <summary>VIRTIO_F_RING_RESET: single queues can be reset (§2.6.1).</summary>
    public const ulong RingReset = 1UL << 40;

    /// <summary>What every queue of this program can do; a device offers it unless it has a reason not to.</summary>
    public const ulong AllQueues = IndirectDescriptors | EventIndex | Version1 | RingPacked | InOrder | RingReset;
}
