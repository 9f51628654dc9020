namespace Vmm.Virtio.Transport.Pci;

/// <summary>Constants of virtio over PCI (VIRTIO 1.3 §4.1).</summary>
internal static class VirtioPciRegisters
{
    /// <summary>Vendor of all virtio devices (§4.1.2).</summary>
    internal const ushort Vendor = 0x1AF4;

    /// <summary>Plus the device type: the device id of a device without a legacy interface (§4.1.2.1).</summary>
    internal const ushort FirstModernDevice = 0x1040;

    /// <summary>At least 1 for a device without a legacy interface (§4.1.2.1).</summary>
    internal const byte Revision = 1;

    /// <summary>At least 0x40 for a device without a legacy interface (§4.1.2.1).</summary>
    internal const ushort Subsystem = 0x1100;

    /// <summary>Capability id of virtio's structures: vendor-specific.</summary>
    internal const byte VendorCapability = 0x09;

    /// <summary>Capability id of MSI-X (PCI Local Bus 3.0 section 6.8.2).</summary>
    internal const byte MsixCapability = 0x11;

    // cfg_type (§4.1.4).
    internal const byte CommonConfiguration = 1;
    internal const byte NotifyConfiguration = 2;
    internal const byte IsrConfiguration = 3;
    internal const byte DeviceConfiguration = 4;
    internal const byte PciConfiguration = 5;
    internal const byte SharedMemoryConfiguration = 8;

    /// <summary>Bytes between two queues' doorbells (§4.1.4.4).</summary>
    internal const int NotifyMultiplier = 4;

    /// <summary>VIRTIO_MSI_NO_VECTOR (§4.1.5.1.2).</summary>
    internal const ushort NoVector = 0xFFFF;

    /// <summary>ISR: buffers were used (§4.1.4.5).</summary>
    internal const int IsrQueue = 1;

    /// <summary>ISR: the configuration changed.</summary>
    internal const int IsrConfigurationChange = 2;

    /// <summary>Offsets in the common configuration structure (§4.1.4.3).</summary>
    internal static class Common
    {
        internal const int DeviceFeatureSelect = 0x00;
        internal const int DeviceFeature = 0x04;
        internal const int DriverFeatureSelect = 0x08;
        internal const int DriverFeature = 0x0C;
        internal const int ConfigMsixVector = 0x10;
        internal const int NumQueues = 0x12;
        internal const int DeviceStatus = 0x14;
        internal const int ConfigGeneration = 0x15;
        internal const int QueueSelect = 0x16;
        internal const int QueueSize = 0x18;
        internal const int QueueMsixVector = 0x1A;
        internal const int QueueEnable = 0x1C;
        internal const int QueueNotifyOff = 0x1E;
        internal const int QueueDesc = 0x20;
        internal const int QueueDriver = 0x28;
        internal const int QueueDevice = 0x30;
        internal const int QueueNotifConfigData = 0x38;
        internal const int QueueReset = 0x3A;

        /// <summary>With the two fields about the administration queue, of which there is none.</summary>
        internal const int Length = 0x40;
    }

    /// <summary>Class, subclass and interface: what kind of device tools show and generic code looks for.</summary>
    internal static uint ClassOf(VirtioDeviceType type) => type switch
    {
        VirtioDeviceType.Network => 0x02_0000,
        VirtioDeviceType.Block or VirtioDeviceType.FileSystem => 0x01_8000,
        VirtioDeviceType.Console or VirtioDeviceType.Socket => 0x07_8000,
        VirtioDeviceType.Memory or VirtioDeviceType.PersistentMemory => 0x05_8000,
        _ => 0xFF_0000,
    };
}
