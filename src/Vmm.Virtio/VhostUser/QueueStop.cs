using Vmm.Virtio.Queues;

namespace Vmm.Virtio.VhostUser;

/// <summary>A queue that was asked to stop, and says when it has.</summary>
internal sealed class QueueStop
{
    private readonly object _lock = new();
    private bool _done;
    private VirtQueueState _state;

    /// <summary>Of a queue that nobody serves.</summary>
    internal static QueueStop Done(VirtQueueState state)
    {
        var stop = new QueueStop();
        stop.Complete(state);
        return stop;
    }

    /// <summary>Whether it has stopped.</summary>
    internal bool IsDone
    {
        get
        {
            lock (_lock)
                return _done;
        }
    }

    /// <summary>Waits until it has, which the deadlines of its back-end bound, and says where it stands.</summary>
    internal VirtQueueState Wait()
    {
        lock (_lock)
        {
            while (!_done)
                Monitor.Wait(_lock);
            return _state;
        }
    }

    /// <summary>It has.</summary>
    internal void Complete(VirtQueueState state)
    {
        lock (_lock)
        {
            _state = state;
            _done = true;
            Monitor.PulseAll(_lock);
        }
    }
}
