namespace Vmm.Virtio.Transport;

/// <summary>The device status field (VIRTIO 1.3 §2.1).</summary>
internal static class DeviceStatus
{
    /// <summary>ACKNOWLEDGE: the guest has found the device.</summary>
    internal const int Acknowledge = 1;

    /// <summary>DRIVER: the guest has a driver for it.</summary>
    internal const int Driver = 2;

    /// <summary>DRIVER_OK: the driver is ready.</summary>
    internal const int DriverOk = 4;

    /// <summary>FEATURES_OK: the driver has accepted features, and the device agrees.</summary>
    internal const int FeaturesOk = 8;

    /// <summary>DEVICE_NEEDS_RESET: the device cannot go on.</summary>
    internal const int DeviceNeedsReset = 64;

    /// <summary>FAILED: the driver has given up.</summary>
    internal const int Failed = 128;
}
