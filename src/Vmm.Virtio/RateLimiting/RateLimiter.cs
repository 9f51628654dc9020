namespace Vmm.Virtio.RateLimiting;

/// <summary>
/// Limits bytes and operations. Queues on several threads may share one: all members may be called by any thread, take one short lock
/// of their own, and allocate nothing.
/// </summary>
public sealed class RateLimiter
{
    private readonly Lock _lock = new();
    private readonly TimeProvider _clock;
    private readonly TokenBucket? _bandwidth;
    private readonly TokenBucket? _operations;

    /// <summary>Makes one whose buckets are full.</summary>
    /// <param name="config">Limits that were validated.</param>
    /// <param name="clock">Where its time comes from; null for the system's monotonic clock.</param>
    public RateLimiter(RateLimiterConfig config, TimeProvider? clock = null)
    {
        _clock = clock ?? TimeProvider.System;
        long now = Now();
        _bandwidth = config.Bandwidth.IsLimit ? new TokenBucket(config.Bandwidth, now) : null;
        _operations = config.Operations.IsLimit ? new TokenBucket(config.Operations, now) : null;
    }

    /// <summary>Makes one, or null where there is nothing to limit.</summary>
    public static RateLimiter? Create(RateLimiterConfig config, TimeProvider? clock = null) =>
        config.IsLimit ? new RateLimiter(config, clock) : null;

    /// <summary>Lets an operation of so many bytes through, or says in how many nanoseconds to ask again; then nothing was taken.</summary>
    /// <param name="bytes">Bytes.</param>
    /// <param name="wait">Nanoseconds until it would be let through, if nobody else asks; 0 when it was.</param>
    public bool TryTake(ulong bytes, out long wait)
    {
        lock (_lock)
        {
            long now = Now();
            wait = Math.Max(_bandwidth?.NanosecondsUntil(bytes, now) ?? 0, _operations?.NanosecondsUntil(1, now) ?? 0);
            if (wait != 0)
                return false;
            _bandwidth?.TryTake(bytes, now);
            _operations?.TryTake(1, now);
            return true;
        }
    }

    /// <summary>Gives back what was taken for an operation that was not done.</summary>
    public void GiveBack(ulong bytes)
    {
        lock (_lock)
        {
            _bandwidth?.GiveBack(bytes);
            _operations?.GiveBack(1);
        }
    }

    /// <summary>Nanoseconds until an operation of so many bytes is let through; 0 when it would be now.</summary>
    public long NanosecondsUntil(ulong bytes)
    {
        lock (_lock)
        {
            long now = Now();
            return Math.Max(_bandwidth?.NanosecondsUntil(bytes, now) ?? 0, _operations?.NanosecondsUntil(1, now) ?? 0);
        }
    }

    private long Now()
    {
        long timestamp = _clock.GetTimestamp();
        long frequency = _clock.TimestampFrequency;
        return frequency == 1_000_000_000 ? timestamp : (long)((Int128)timestamp * 1_000_000_000 / frequency);
    }
}
