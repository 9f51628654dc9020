namespace Vmm.Virtio.VhostUser;

/// <summary>Feature bits that have a meaning of their own between front-end and back-end, as masks.</summary>
internal static class VhostUserFeatures
{
    /// <summary>VHOST_F_LOG_ALL: writes to guest memory are logged.</summary>
    public const ulong LogAll = 1UL << 26;

    /// <summary>VHOST_USER_F_PROTOCOL_FEATURES: there are protocol features, and rings begin disabled.</summary>
    public const ulong ProtocolFeatures = 1UL << 30;

    /// <summary>
    /// What a guest is never offered, whatever the back-end offers: the two above; VIRTIO_F_NOTIFY_ON_EMPTY and VIRTIO_F_ANY_LAYOUT, which
    /// are of legacy devices; VIRTIO_F_ACCESS_PLATFORM and VIRTIO_F_ORDER_PLATFORM, as there is no IOMMU; VIRTIO_F_SR_IOV,
    /// VIRTIO_F_NOTIFICATION_DATA and VIRTIO_F_NOTIF_CONFIG_DATA, as a doorbell is an eventfd and carries nothing; VIRTIO_F_ADMIN_VQ.
    /// </summary>
    public const ulong NotForGuests = LogAll | ProtocolFeatures | (1UL << 24) | (1UL << 27) | (1UL << 33) | (1UL << 36) | (1UL << 37)
        | (1UL << 38) | (1UL << 39) | (1UL << 41);
}
