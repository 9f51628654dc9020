using Vmm.Machine.Configuration;

namespace Vmm.Machine.Logging;

/// <summary>
/// For one line of the log that a guest can provoke as often as it likes. The first <c>burst</c> go through, then one per interval;
/// how many were left out is said with the next one. Leaving one out allocates nothing. From any thread.
/// </summary>
public sealed class RateLimitedLog
{
    private readonly VmLog _log;
    private readonly LogLevel _level;
    private readonly TimeProvider _clock;
    private readonly object _gate = new();
    private readonly int _burst;
    private readonly double _interval;
    private double _tokens;
    private long _last;
    private long _suppressed;

    /// <summary>Makes a limit for one place in the program.</summary>
    /// <param name="log">Where the lines go.</param>
    /// <param name="level">Their level.</param>
    /// <param name="burst">How many go through at once: 1 or more.</param>
    /// <param name="secondsPerLine">After that, how long until the next: above 0.</param>
    /// <param name="clock">The clock, for tests.</param>
    public RateLimitedLog(VmLog log, LogLevel level, int burst = 10, double secondsPerLine = 5, TimeProvider? clock = null)
    {
        ArgumentNullException.ThrowIfNull(log);
        ArgumentOutOfRangeException.ThrowIfLessThan(burst, 1);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(secondsPerLine);
        (_log, _level, _burst, _interval, _clock) = (log, level, burst, secondsPerLine, clock ?? TimeProvider.System);
        _tokens = burst;
        _last = _clock.GetTimestamp();
    }

    /// <summary>Writes the line that <paramref name="line"/> makes of <paramref name="state"/>, or counts it. A static lambda costs nothing.</summary>
    public void Write<T>(T state, Func<T, string> line)
    {
        ArgumentNullException.ThrowIfNull(line);
        if (!_log.IsEnabled(_level) || !Take(out long suppressed))
            return;
        SaySuppressed(suppressed);
        _log.Write(_level, line(state));
    }

    /// <summary>Says how many lines were left out since the last one, if any; for the end of a device.</summary>
    public void Flush()
    {
        long suppressed;
        lock (_gate)
            (suppressed, _suppressed) = (_suppressed, 0);
        SaySuppressed(suppressed);
    }

    private bool Take(out long suppressed)
    {
        lock (_gate)
        {
            long now = _clock.GetTimestamp();
            _tokens = Math.Min(_burst, _tokens + (_clock.GetElapsedTime(_last, now).TotalSeconds / _interval));
            _last = now;
            if (_tokens < 1)
            {
                _suppressed++;
                suppressed = 0;
                return false;
            }

            _tokens--;
            (suppressed, _suppressed) = (_suppressed, 0);
            return true;
        }
    }

    private void SaySuppressed(long suppressed)
    {
        if (suppressed != 0)
            _log.Write(_level, $"{suppressed} similar lines suppressed");
    }
}
