using Vmm.Core.Events;

namespace Vmm.Virtio.RateLimiting;

/// <summary>
/// A rate limiter as one queue sees it: what is not let through now is left in the queue, and the queue is served again when it is
/// time. Belongs to the thread of the queue's loop.
/// </summary>
/// <remarks>
/// A device puts the chain back that was not let through, answers <see cref="InProcessDevice.WantsDoorbell"/> with false while
/// <see cref="IsThrottled"/>, and passes <see cref="InProcessDevice.ScheduleQueue"/> as what to wake.
/// </remarks>
public sealed class QueueThrottle : IEventHandler, IDisposable
{
    private readonly RateLimiter _limiter;
    private readonly EventLoop _loop;
    private readonly Action<int> _wake;
    private readonly int _queue;
    private readonly TimerNotifier _timer = new();

    /// <summary>Makes one and lets the loop watch its timer.</summary>
    /// <param name="limiter">May be shared with other queues.</param>
    /// <param name="loop">The queue's.</param>
    /// <param name="wake">Serves the queue soon; called on the loop.</param>
    /// <param name="queue">What it is called with.</param>
    /// <exception cref="Core.VmmException">The process has no descriptor left.</exception>
    public QueueThrottle(RateLimiter limiter, EventLoop loop, Action<int> wake, int queue)
    {
        _limiter = limiter;
        _loop = loop;
        _wake = wake;
        _queue = queue;
        loop.Add(_timer.Number, this);
    }

    /// <summary>Whether the queue waits for the timer.</summary>
    public bool IsThrottled { get; private set; }

    /// <summary>How often something had to wait.</summary>
    public long Waits { get; private set; }

    /// <summary>Lets an operation of so many bytes through, or sets the timer and answers false.</summary>
    public bool TryTake(ulong bytes)
    {
        if (_limiter.TryTake(bytes, out long wait))
        {
            IsThrottled = false;
            return true;
        }
        if (!IsThrottled)
            Waits++;
        IsThrottled = true;
        _timer.Arm(wait);
        return false;
    }

    /// <inheritdoc/>
    public bool Handle()
    {
        if (IsThrottled)
        {
            IsThrottled = false;
            _wake(_queue);
        }
        return false;
    }

    /// <summary>The loop does not watch it any more.</summary>
    public void Dispose()
    {
        _loop.Remove(_timer.Number);
        _timer.Dispose();
    }
}
