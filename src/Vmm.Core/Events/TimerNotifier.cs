using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Events;

/// <summary>
/// A timerfd on the monotonic clock that expires once for each <see cref="Arm"/>: an <see cref="EventLoop"/> that watches
/// <see cref="Number"/> then calls its handler. It need not be read: arming it again takes an expiry back.
/// </summary>
public sealed unsafe class TimerNotifier : IDisposable
{
    private const long NanosecondsPerSecond = 1_000_000_000;

    private readonly FileDescriptor _fd;

    /// <summary>Makes one that is not armed.</summary>
    /// <exception cref="VmmException">The process has no descriptor left.</exception>
    public TimerNotifier()
    {
        int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (fd < 0)
            throw VmmException.Host($"Cannot make a timerfd: {strerror(errno)} (errno {errno}). Raise the limit on open files (ulimit -n).");
        _fd = new FileDescriptor(fd);
    }

    /// <summary>The descriptor's number; valid until <see cref="Dispose"/>.</summary>
    public int Number => _fd.Number;

    /// <summary>Expires once, this many nanoseconds from now; at once for 0 and below. Forgets what was armed before.</summary>
    public void Arm(long nanoseconds)
    {
        nanoseconds = Math.Max(1, nanoseconds);
        Set(nanoseconds / NanosecondsPerSecond, nanoseconds % NanosecondsPerSecond);
    }

    /// <summary>Does not expire, unless armed again.</summary>
    public void Disarm() => Set(0, 0);

    /// <inheritdoc/>
    public void Dispose() => _fd.Dispose();

    private void Set(long seconds, long nanoseconds)
    {
        var value = new itimerspec { it_value = new timespec { tv_sec = seconds, tv_nsec = nanoseconds } };
        // It cannot fail: the descriptor is a timer and the time is in range. The pointer is to a local.
        _ = timerfd_settime(_fd.Number, 0, &value, null);
    }
}
