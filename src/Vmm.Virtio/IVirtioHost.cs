namespace Vmm.Virtio;

/// <summary>
/// What a device may ask of the transport that it sits on. Any thread; none of it waits, takes a lock that is held while a device is
/// called, or throws.
/// </summary>
public interface IVirtioHost
{
    /// <summary>Interrupts the driver for a queue: its vector, or the shared line. The queue decides whether the driver wants it.</summary>
    void SignalQueue(int queue);

    /// <summary>The configuration space changed: counts its generation up and interrupts the driver (VIRTIO 1.3 §2.5, §2.3).</summary>
    void SignalConfigurationChange();

    /// <summary>
    /// The driver broke a rule: sets DEVICE_NEEDS_RESET (VIRTIO 1.3 §2.1.1) and tells the driver. Nothing but this device is touched, and
    /// the device does nothing more until it is reset.
    /// </summary>
    /// <param name="reason">One clause for the log: what the driver did.</param>
    void NeedsReset(string reason);
}
