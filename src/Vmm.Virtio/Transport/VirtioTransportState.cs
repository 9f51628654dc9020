using Vmm.Devices.Pci;
using Vmm.Virtio.Queues;
using Vmm.Virtio.Transport.Pci;

namespace Vmm.Virtio.Transport;

/// <summary>Saved state of a device on its transport.</summary>
public sealed record VirtioTransportState
{
    /// <summary>The version this program writes and reads.</summary>
    public const int CurrentVersion = 1;

    /// <summary>Version of this record's layout.</summary>
    public int Version { get; init; } = CurrentVersion;

    /// <summary>Device type.</summary>
    public VirtioDeviceType Type { get; init; }

    /// <summary>The device's own state.</summary>
    public VirtioDeviceState? Device { get; init; }

    /// <summary>Device status (VIRTIO 1.3 §2.1).</summary>
    public byte Status { get; init; }

    /// <summary>What the driver accepted, also before FEATURES_OK.</summary>
    public ulong DriverFeatures { get; init; }

    /// <summary>Whether the driver accepted bits above 63, of which there are none.</summary>
    public bool HasUnknownFeatures { get; init; }

    /// <summary>Window of device features.</summary>
    public uint DeviceFeaturesSelect { get; init; }

    /// <summary>Window of driver features.</summary>
    public uint DriverFeaturesSelect { get; init; }

    /// <summary>The queue that the queue registers are of.</summary>
    public uint QueueSelect { get; init; }

    /// <summary>Configuration generation.</summary>
    public uint ConfigurationGeneration { get; init; }

    /// <summary>Whether the driver has switched bus mastering off, so that its queues stand still; false off the PCI bus.</summary>
    public bool IsSilenced { get; init; }

    /// <summary>Every queue.</summary>
    public VirtioQueueState[] Queues { get; init; } = [];

    /// <summary>What only virtio-mmio has.</summary>
    public VirtioMmioState? Mmio { get; init; }

    /// <summary>What only virtio-pci has.</summary>
    public VirtioPciState? Pci { get; init; }
}

/// <summary>Registers of a queue, and where it stands.</summary>
/// <param name="Size">Descriptors.</param>
/// <param name="DescriptorArea">Guest address.</param>
/// <param name="DriverArea">Guest address.</param>
/// <param name="DeviceArea">Guest address.</param>
/// <param name="Enabled">QueueReady, queue_enable.</param>
/// <param name="Ring">Where it stands.</param>
public sealed record VirtioQueueState(
    ushort Size, ulong DescriptorArea, ulong DriverArea, ulong DeviceArea, bool Enabled, VirtQueueState Ring);

/// <summary>What only virtio-mmio has to save.</summary>
/// <param name="InterruptStatus">InterruptStatus.</param>
/// <param name="SharedMemorySelect">SHMSel.</param>
public sealed record VirtioMmioState(uint InterruptStatus, uint SharedMemorySelect);

/// <summary>What only virtio-pci has to save.</summary>
/// <param name="Configuration">Configuration space, BARs included.</param>
/// <param name="InterruptStatus">ISR status.</param>
/// <param name="ConfigurationVector">config_msix_vector.</param>
/// <param name="QueueVectors">queue_msix_vector of each queue.</param>
/// <param name="Msix">The MSI-X table.</param>
public sealed record VirtioPciState(
    PciConfigurationState Configuration, byte InterruptStatus, ushort ConfigurationVector, ushort[] QueueVectors, MsixState Msix);
