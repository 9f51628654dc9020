using Vmm.Virtio.Queues;
using Vmm.Virtio.SharedMemory;

namespace Vmm.Virtio;

/// <summary>
/// A virtio device, which does not know its bus: the same object sits on virtio-mmio and on virtio-pci, and serves its queues itself
/// (<see cref="InProcessDevice"/>) or passes them to an external back-end.
/// </summary>
/// <remarks>
/// A transport calls it with its own lock held, one call at a time: from vCPU threads, as the driver's accesses ask for it, and from the
/// threads that pause, save, restore, reset and dispose of the machine. <see cref="Activate"/> comes first, then <see cref="StartQueue"/> and
/// <see cref="StopQueue"/> for each queue in any order and repeatedly, then <see cref="Reset"/>. Nothing that a driver does makes a member
/// throw.
/// <para>
/// The lock is held while a member runs, also while <see cref="StopQueue"/> waits: other vCPUs that touch the device's registers wait too.
/// So a driver's reset of the device or of a queue begins with <see cref="BeginStopQueue"/> for each that runs, and calls
/// <see cref="StopQueue"/> once <see cref="IsQueueStopped"/> says of all that it does not wait. On virtio-pci that is asked when the driver
/// reads a register, as it does until the reset is complete; on virtio-mmio the vCPU that wrote the register asks, with pauses between, and
/// without the lock in these. A machine's pause, save, reset and end, a reset of the bus, and bus mastering switched off call
/// <see cref="StopQueue"/> at once, after <see cref="BeginStopQueue"/> for all queues that run; but bus mastering does not where others serve
/// the queues (<see cref="HasExternalCalls"/>), as no vCPU waits for these.
/// </para>
/// </remarks>
public abstract class VirtioDevice : IDisposable
{
    /// <summary>Makes a device.</summary>
    /// <param name="id">The name that people gave it, unique in the machine: <c>disk0</c>.</param>
    /// <param name="type">What a driver finds it by.</param>
    protected VirtioDevice(string id, VirtioDeviceType type)
    {
        Id = id;
        Type = type;
    }

    /// <summary>The name that people gave it.</summary>
    public string Id { get; }

    /// <summary>What a driver finds it by.</summary>
    public VirtioDeviceType Type { get; }

    /// <summary>The feature bits that are offered: the device's own and those of <see cref="VirtioFeatures"/>.</summary>
    public abstract ulong OfferedFeatures { get; }

    /// <summary>Features that are not offered although the device has them; set before it is put on a bus.</summary>
    public ulong WithheldFeatures { get; set; }

    /// <summary>What a driver is offered.</summary>
    public ulong Features => OfferedFeatures & ~WithheldFeatures;

    /// <summary>The largest size of each queue, in descriptors: powers of two from 2 to 32768. Constant.</summary>
    public abstract IReadOnlyList<ushort> QueueSizes { get; }

    /// <summary>The shared memory regions (VIRTIO 1.3 §2.10), each with an id of its own. Constant.</summary>
    public virtual IReadOnlyList<SharedMemoryRegion> SharedMemory => [];

    /// <summary>
    /// Whether its queues are served by somebody who signals an eventfd, <see cref="VirtQueueSetup.Call"/>, in place of
    /// <see cref="IVirtioHost.SignalQueue"/>, which still works. Constant.
    /// </summary>
    public virtual bool HasExternalCalls => false;

    /// <summary>Bytes of the configuration space (VIRTIO 1.3 §2.5); a transport answers for what lies beyond.</summary>
    public abstract int ConfigurationLength { get; }

    /// <summary>
    /// Counts changes of the configuration space as they are made, for a device that makes them by itself: also before a driver is ready, and
    /// at once with the change, where <see cref="IVirtioHost.SignalConfigurationChange"/> counts behind it.
    /// </summary>
    public virtual uint ConfigurationGeneration => 0;

    /// <summary>
    /// Reads the configuration space; the access lies wholly inside it. Also called before the device is activated and while its
    /// queues run.
    /// </summary>
    public abstract void ReadConfiguration(int offset, Span<byte> data);

    /// <summary>A driver's write to the configuration space, wholly inside it. Dropped unless a device has writable fields.</summary>
    public virtual void WriteConfiguration(int offset, ReadOnlySpan<byte> data)
    {
    }

    /// <summary>The driver is ready: DRIVER_OK was set. Queues follow.</summary>
    public abstract void Activate(VirtioActivation activation);

    /// <summary>
    /// Serves a queue from the state in the setup on. Doorbells rung before count. Where its areas are not in RAM, the device tells its
    /// host <see cref="IVirtioHost.NeedsReset"/>.
    /// </summary>
    public abstract void StartQueue(in VirtQueueSetup setup);

    /// <summary>Every queue that is to be started now was: a device that begins with all of them at once does.</summary>
    public virtual void QueuesStarted()
    {
    }

    /// <summary>
    /// Asks for a stop of a queue that was started, without waiting for it. <see cref="StopQueue"/> follows in any case, and before it only
    /// this again and <see cref="IsQueueStopped"/>.
    /// </summary>
    public virtual void BeginStopQueue(int index)
    {
    }

    /// <summary>
    /// Whether <see cref="StopQueue"/> would not wait. After <see cref="BeginStopQueue"/> it becomes true by itself in bounded time, whatever
    /// became of who serves the queue, and stays so. Does not wait.
    /// </summary>
    public virtual bool IsQueueStopped(int index) => true;

    /// <summary>
    /// Stops a queue: every request that was taken from it is completed or given back when this returns, and none is taken after.
    /// Repeating it gives the same answer.
    /// </summary>
    /// <returns>Where the queue stands; default for one that was never started.</returns>
    public abstract VirtQueueState StopQueue(int index);

    /// <summary>Forgets what a driver told it. All queues are stopped. Called for a reset of the driver, of the bus and of the machine.</summary>
    public abstract void Reset();

    /// <summary>
    /// Copies what a guest can observe of the device beyond its queues and features, which are the transport's to save. All queues are
    /// stopped.
    /// </summary>
    public abstract VirtioDeviceState Save();

    /// <summary>Puts a saved state back, before the device is activated again.</summary>
    /// <exception cref="Core.VmmException">The state is of another device, of an unknown version, or damaged.</exception>
    public abstract void Restore(VirtioDeviceState state);

    /// <summary>Tells all its counters, those of its queues included.</summary>
    public abstract void ReportCounters(ICounterSink sink);

    /// <summary>Gives back what it holds. All queues are stopped and nobody calls it any more.</summary>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Tells the counters of its shared memory regions.</summary>
    protected void ReportSharedMemory(ICounterSink sink)
    {
        foreach (SharedMemoryRegion region in SharedMemory)
            region.Counters.Report(sink);
    }

    /// <summary>Gives back what it holds.</summary>
    protected virtual void Dispose(bool disposing)
    {
    }
}
