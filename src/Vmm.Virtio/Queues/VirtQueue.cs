using System.Diagnostics.CodeAnalysis;
using Vmm.Core.Events;

namespace Vmm.Virtio.Queues;

/// <summary>
/// A running virtqueue, whatever its layout (VIRTIO 1.3 §2.6): chains of buffers are taken, given back, and the driver is told. Used by
/// one thread at a time, that of its event loop; no member allocates in its steady state.
/// </summary>
/// <remarks>
/// A driver that breaks a rule breaks the queue: the host is told once (<see cref="IVirtioHost.NeedsReset"/>), and from then on there is
/// nothing to take and what is given back is dropped.
/// </remarks>
public abstract class VirtQueue
{
    private readonly IVirtioHost _host;

    /// <summary>Keeps what every layout has.</summary>
    private protected VirtQueue(in VirtQueueSetup setup, VirtioActivation activation, QueueCounters counters)
    {
        Index = setup.Index;
        Size = setup.Size;
        Doorbell = setup.Doorbell;
        Counters = counters;
        Activation = activation;
        _host = activation.Host;
    }

    /// <summary>Which queue of the device.</summary>
    public int Index { get; }

    /// <summary>Descriptors.</summary>
    public ushort Size { get; }

    /// <summary>Signalled when the driver notifies.</summary>
    public EventNotifier Doorbell { get; }

    /// <summary>What it did.</summary>
    public QueueCounters Counters { get; }

    /// <summary>Whether the driver broke a rule; only a reset mends it.</summary>
    public bool IsBroken { get; private set; }

    /// <summary>
    /// Whether buffers may also lie in memory whose pages can vanish (<see cref="DescriptorChain.MayVanish"/>); else they must be in RAM. For
    /// devices that take care of it.
    /// </summary>
    internal bool ReachesVanishing { get; set; }

    /// <summary>Features, memory and transport that it runs with.</summary>
    protected VirtioActivation Activation { get; }

    /// <summary>Where it stands: what was taken and not given back counts as taken. Buffers given back are published first.</summary>
    public abstract VirtQueueState State { get; }

    /// <summary>Whether there is something to take.</summary>
    public abstract bool HasAvailable { get; }

    /// <summary>Takes the next chain; false when there is none, or the queue is broken.</summary>
    public abstract bool TryTake([NotNullWhen(true)] out DescriptorChain? chain);

    /// <summary>Puts back the chain that was taken last, unused: the next <see cref="TryTake"/> gives it again.</summary>
    public abstract void Untake(DescriptorChain chain);

    /// <summary>
    /// Gives a chain back with the number of bytes written into it, counted from the start of its writable part. The driver sees it, and
    /// all those since the last <see cref="Flush"/> at once, after the next one. Any order; with VIRTIO_F_IN_ORDER the queue keeps those
    /// that are early until their turn.
    /// </summary>
    public abstract void GiveBack(DescriptorChain chain, uint written);

    /// <summary>Lets the driver see what was given back, and interrupts it if it wants to be.</summary>
    public abstract void Flush();

    /// <summary>Asks the driver not to ring the doorbell; it may ring all the same.</summary>
    public abstract void SuppressNotifications();

    /// <summary>Asks the driver to ring for the next buffer. True when there is one already, for which it may not ring.</summary>
    public abstract bool RequestNotifications();

    /// <summary>Makes the queue of a setup, in the layout that was negotiated.</summary>
    /// <param name="setup">As the driver set it up.</param>
    /// <param name="activation">Features, memory and transport.</param>
    /// <param name="counters">What it counts in.</param>
    /// <param name="queue">The queue.</param>
    /// <param name="problem">What is wrong with the setup, as a clause.</param>
    public static bool TryCreate(
        in VirtQueueSetup setup, VirtioActivation activation, QueueCounters counters, [NotNullWhen(true)] out VirtQueue? queue,
        [NotNullWhen(false)] out string? problem)
    {
        ArgumentNullException.ThrowIfNull(activation);
        ArgumentNullException.ThrowIfNull(counters);
        return activation.Has(VirtioFeatures.RingPacked)
            ? PackedQueue.TryCreatePacked(setup, activation, counters, out queue, out problem)
            : SplitQueue.TryCreateSplit(setup, activation, counters, out queue, out problem);
    }

    /// <summary>
    /// The driver broke a rule, of the queue or of the device's requests: the device needs a reset, and nothing is taken any more.
    /// </summary>
    /// <param name="reason">One clause: what it did.</param>
    public void Break(string reason)
    {
        if (IsBroken)
            return;
        IsBroken = true;
        _host.NeedsReset($"queue {Index}: {reason}");
    }

    /// <summary>Interrupts the driver.</summary>
    private protected void SignalDriver()
    {
        Counters.CountInterrupt();
        _host.SignalQueue(Index);
    }
}
