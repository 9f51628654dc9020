namespace Vmm.Virtio.Transport;

/// <summary>How a driver reaches a device.</summary>
public enum VirtioBus
{
    /// <summary>Virtio over MMIO (VIRTIO 1.3 §4.2).</summary>
    Mmio,

    /// <summary>Virtio over PCI (VIRTIO 1.3 §4.1).</summary>
    Pci,
}
