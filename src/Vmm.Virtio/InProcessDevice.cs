using Vmm.Core.Events;
using Vmm.Virtio.Queues;

namespace Vmm.Virtio;

/// <summary>
/// A device that serves its queues itself, each on one event loop: everything of a queue belongs to that loop's thread, so that its
/// path takes no lock. Queues of one device may be on different loops.
/// </summary>
public abstract class InProcessDevice : VirtioDevice
{
    private readonly EventLoop[] _loops;
    private readonly ushort[] _sizes;
    private readonly QueueCounters[] _counters;
    private readonly QueueRunner?[] _runners;
    private readonly VirtQueueState[] _stopped;

    /// <summary>Makes a device.</summary>
    /// <param name="id">The name that people gave it.</param>
    /// <param name="type">What a driver finds it by.</param>
    /// <param name="queueSizes">The largest size of each queue.</param>
    /// <param name="loops">The loop of each queue, taken in turn when there are fewer; at least one.</param>
    protected InProcessDevice(string id, VirtioDeviceType type, ushort[] queueSizes, IReadOnlyList<EventLoop> loops)
        : base(id, type)
    {
        ArgumentNullException.ThrowIfNull(queueSizes);
        ArgumentNullException.ThrowIfNull(loops);
        ArgumentOutOfRangeException.ThrowIfZero(loops.Count);
        _sizes = queueSizes;
        _loops = new EventLoop[queueSizes.Length];
        _counters = new QueueCounters[queueSizes.Length];
        _runners = new QueueRunner?[queueSizes.Length];
        _stopped = new VirtQueueState[queueSizes.Length];
        for (int i = 0; i < queueSizes.Length; i++)
        {
            _loops[i] = loops[i % loops.Count];
            _counters[i] = new QueueCounters(i);
        }
    }

    /// <inheritdoc/>
    public sealed override IReadOnlyList<ushort> QueueSizes => _sizes;

    /// <summary>What the driver accepted; null before it is ready and after a reset.</summary>
    protected VirtioActivation? Activation { get; private set; }

    /// <inheritdoc/>
    public override void Activate(VirtioActivation activation) => Activation = activation;

    /// <inheritdoc/>
    public sealed override void StartQueue(in VirtQueueSetup setup)
    {
        if (Activation is not { } activation || _runners[setup.Index] != null)
            return;
        if (!VirtQueue.TryCreate(setup, activation, _counters[setup.Index], out VirtQueue? queue, out string? problem))
        {
            activation.Host.NeedsReset($"queue {setup.Index}: {problem}");
            return;
        }
        EventLoop loop = _loops[setup.Index];
        var runner = new QueueRunner(this, queue, activation.Host);
        int index = setup.Index;
        loop.Invoke(() =>
        {
            _runners[index] = runner;
            QueueStarted(queue);
            loop.Add(queue.Doorbell.Number, runner);
            // What was available before has no ring of its own.
            loop.Schedule(queue.Doorbell.Number);
        });
    }

    /// <inheritdoc/>
    public sealed override VirtQueueState StopQueue(int index)
    {
        if (_runners[index] is { } runner)
        {
            EventLoop loop = _loops[index];
            loop.Invoke(() =>
            {
                loop.Remove(runner.Queue.Doorbell.Number);
                try
                {
                    QueueStopping(runner.Queue);
                }
                finally
                {
                    // Also where that failed, by a defect: a queue that stayed would never be started again, not even after a reset.
                    _runners[index] = null;
                    _stopped[index] = runner.Queue.State;
                }
            });
        }
        return _stopped[index];
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        Activation = null;
        Array.Clear(_stopped);
    }

    /// <inheritdoc/>
    public override void ReportCounters(ICounterSink sink)
    {
        foreach (QueueCounters counters in _counters)
            counters.Report(sink);
        ReportSharedMemory(sink);
    }

    /// <summary>The loop that serves a queue.</summary>
    protected EventLoop LoopOf(int queue) => _loops[queue];

    /// <summary>The running queue; null when it is stopped. For the queue's own loop.</summary>
    protected VirtQueue? RunningQueue(int index) => _runners[index]?.Queue;

    /// <summary>Serves a queue again soon, as if its doorbell had rung. On the queue's own loop.</summary>
    protected void ScheduleQueue(int index)
    {
        if (_runners[index] is { } runner)
            _loops[index].Schedule(runner.Queue.Doorbell.Number);
    }

    /// <summary>
    /// Serves a queue at once, as its doorbell would, because the other side has something for it. On the queue's own loop, from the
    /// handler of another descriptor.
    /// </summary>
    /// <returns>True when there is more to do.</returns>
    protected bool ServeQueueNow(int index) => _runners[index] is { } runner && runner.Serve();

    /// <summary>A queue is about to be served. On its loop.</summary>
    protected virtual void QueueStarted(VirtQueue queue)
    {
    }

    /// <summary>
    /// A queue will not be served any more: completes or puts back everything that was taken from it, and flushes. On its loop, which is
    /// the only place where a device may wait: for its own requests in flight.
    /// </summary>
    protected virtual void QueueStopping(VirtQueue queue)
    {
    }

    /// <summary>Takes and serves a bounded number of chains, and flushes. On the queue's loop.</summary>
    /// <returns>True when it stopped because of the bound.</returns>
    protected abstract bool ServeQueue(VirtQueue queue);

    /// <summary>
    /// Whether the driver should ring for the next buffer, now that all there is was served. False while the device would not serve it:
    /// it is throttled or full, and calls <see cref="ScheduleQueue"/> when that ends.
    /// </summary>
    protected virtual bool WantsDoorbell(VirtQueue queue) => true;

    private sealed class QueueRunner(InProcessDevice device, VirtQueue queue, IVirtioHost host) : IEventHandler
    {
        private bool _failed;

        public VirtQueue Queue => queue;

        public bool Handle()
        {
            queue.Counters.CountKick();
            return Serve();
        }

        public bool Serve()
        {
            if (_failed || queue.IsBroken)
                return false;
            try
            {
                queue.SuppressNotifications();
                return device.ServeQueue(queue) || (device.WantsDoorbell(queue) && queue.RequestNotifications());
            }
            catch (Exception e)
            {
                // A defect of ours costs this device, not the machine.
                _failed = true;
                host.NeedsReset($"queue {queue.Index}: this program failed on it, which is a defect: {e.GetType().Name}: {e.Message}");
                return false;
            }
        }
    }
}
