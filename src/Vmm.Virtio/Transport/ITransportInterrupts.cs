namespace Vmm.Virtio.Transport;

/// <summary>
/// How a transport interrupts its driver. Where not said otherwise: any thread; nothing waits, throws, or takes the transport's lock.
/// </summary>
internal interface ITransportInterrupts
{
    /// <summary>
    /// The driver is ready, now or when the state that is restored was saved: signals of <see cref="TransportQueue.Call"/> interrupt it
    /// from now on, until <see cref="ResetInterrupts"/>. With the transport's lock held.
    /// </summary>
    void DriverReady();

    /// <summary>Buffers of a queue were used (VIRTIO 1.3 §2.3).</summary>
    void InterruptQueue(int queue);

    /// <summary>The configuration changed, or the device needs a reset.</summary>
    void InterruptConfiguration();

    /// <summary>
    /// Forgets what is pending and where a driver wanted it: the device was reset, or ends. No call is attached or watched when it
    /// returns, nor signalled. With the transport's lock held.
    /// </summary>
    void ResetInterrupts();

    /// <summary>Forgets where a driver wanted the interrupts of a queue, which was reset by itself. With the transport's lock held.</summary>
    void ResetQueueInterrupt(int queue);
}
