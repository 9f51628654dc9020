using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Events;

/// <summary>
/// Calls something on the thread of an <see cref="EventLoop"/> after a time, once or again and again (timerfd_create(2), CLOCK_MONOTONIC).
/// Times that passed while the loop was busy are one call.
/// </summary>
public sealed unsafe class LoopTimer : IEventHandler, IDisposable
{
    private readonly EventLoop _loop;
    private readonly Action _expired;
    private readonly FileDescriptor _fd;

    /// <summary>Makes a timer that is stopped.</summary>
    /// <param name="loop">Where to call; outlives the timer.</param>
    /// <param name="expired">Called on the loop's thread; short, and never throws.</param>
    /// <exception cref="VmmException">The process has no descriptor left.</exception>
    public LoopTimer(EventLoop loop, Action expired)
    {
        ArgumentNullException.ThrowIfNull(loop);
        ArgumentNullException.ThrowIfNull(expired);
        _loop = loop;
        _expired = expired;
        int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (fd < 0)
            throw VmmException.Host($"Cannot make a timer: {strerror(errno)} (errno {errno}). Raise the limit on open files (ulimit -n).");
        _fd = new FileDescriptor(fd);
        loop.Add(fd, this);
    }

    /// <summary>Starts it, or starts it anew. Any thread.</summary>
    /// <param name="after">Until the first call; above zero.</param>
    /// <param name="every">Between the calls after that; zero for only one.</param>
    public void Start(TimeSpan after, TimeSpan every = default)
    {
        ArgumentOutOfRangeException.ThrowIfLessThanOrEqual(after, TimeSpan.Zero);
        ArgumentOutOfRangeException.ThrowIfLessThan(every, TimeSpan.Zero);
        Set(after, every);
    }

    /// <summary>Stops it. A call that is under way on the loop's thread is not waited for. Any thread.</summary>
    public void Stop() => Set(TimeSpan.Zero, TimeSpan.Zero);

    bool IEventHandler.Handle()
    {
        ulong count;
        // A timer that was stopped or started anew since it expired has nothing to read. The pointer is to a local.
        if (read(_fd.Number, &count, sizeof(ulong)) == sizeof(ulong))
            _expired();
        return false;
    }

    /// <summary>Stops it for good; no call comes after. Not called while something waits for the loop's thread.</summary>
    public void Dispose()
    {
        if (_fd.IsClosed)
            return;
        _loop.Remove(_fd.Number);
        _fd.Dispose();
    }

    private void Set(TimeSpan after, TimeSpan every)
    {
        var value = new itimerspec { it_value = Split(after), it_interval = Split(every) };
        // It cannot fail: the descriptor is a timer, the times are in range and the pointer is to a local.
        _ = timerfd_settime(_fd.Number, 0, &value, null);
    }

    private static timespec Split(TimeSpan time) =>
        new() { tv_sec = time.Ticks / TimeSpan.TicksPerSecond, tv_nsec = time.Ticks % TimeSpan.TicksPerSecond * TimeSpan.NanosecondsPerTick };
}
