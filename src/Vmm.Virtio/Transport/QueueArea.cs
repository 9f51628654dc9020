namespace Vmm.Virtio.Transport;

/// <summary>The areas of a queue (VIRTIO 1.3 §2.6).</summary>
internal enum QueueArea
{
    /// <summary>Descriptor table or ring.</summary>
    Descriptor,

    /// <summary>Available ring, or the driver's event suppression structure.</summary>
    Driver,

    /// <summary>Used ring, or the device's event suppression structure.</summary>
    Device,
}
