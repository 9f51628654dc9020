namespace Vmm.Virtio.Transport;

/// <summary>A device on its bus. It owns the device. Any thread; one call at a time.</summary>
internal interface IVirtioTransport : IDisposable
{
    /// <summary>The device.</summary>
    VirtioDevice Device { get; }

    /// <summary>Which bus it is on.</summary>
    VirtioBus Bus { get; }

    /// <summary>Whether a driver has said DRIVER_OK and nothing has broken since.</summary>
    bool IsRunning { get; }

    /// <summary>Asks the queues to stop for a <see cref="Pause"/> that follows, and does not wait.</summary>
    void BeginPause();

    /// <summary>
    /// Stops the queues where they stand, until as many calls of <see cref="Resume"/>. The vCPUs need not be stopped, but are for a save.
    /// </summary>
    void Pause();

    /// <summary>Starts what <see cref="Pause"/> or <see cref="Restore"/> left stopped.</summary>
    void Resume();

    /// <summary>Copies all that a guest can observe of the transport and its device, which is paused.</summary>
    VirtioTransportState Save();

    /// <summary>Puts a saved state back, into a device that no driver has touched yet. It is paused afterwards.</summary>
    /// <exception cref="Core.VmmException">The state is of another device or transport, of an unknown version, or damaged.</exception>
    void Restore(VirtioTransportState state);
}
