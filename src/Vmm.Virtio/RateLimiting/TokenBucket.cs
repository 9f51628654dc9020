namespace Vmm.Virtio.RateLimiting;

/// <summary>
/// A token bucket, exact over any time: the fraction of a token that a refill leaves over is kept. The time is its caller's, in
/// nanoseconds that never go back. For one thread at a time; allocates nothing.
/// </summary>
/// <remarks>
/// A request for more tokens than the bucket holds when full is let through once it is full, and leaves a debt that the refill pays
/// before anything else is let through. So every request gets its turn, and the rate holds all the same.
/// </remarks>
public sealed class TokenBucket
{
    private const ulong NanosecondsPerMillisecond = 1_000_000;

    private readonly long _size;
    private readonly ulong _refill;
    private long _burst;
    private Int128 _budget;
    private UInt128 _fraction;
    private long _refilled;

    /// <summary>Makes a full one.</summary>
    /// <param name="config">A limit that was validated.</param>
    /// <param name="now">The time.</param>
    public TokenBucket(TokenBucketConfig config, long now)
    {
        if (!config.IsLimit)
            throw new ArgumentException("It does not limit anything.", nameof(config));
        _size = checked((long)config.Size);
        _burst = checked((long)config.OneTimeBurst);
        _refill = checked(config.RefillTime * NanosecondsPerMillisecond);
        _budget = _size;
        _refilled = now;
    }

    /// <summary>Tokens that may be taken now, as of the last call; below 0 while a debt is being paid.</summary>
    public long Budget => (long)Int128.Clamp(_budget + _burst, long.MinValue, long.MaxValue);

    /// <summary>Takes tokens; false, with nothing taken, when there are too few.</summary>
    public bool TryTake(ulong tokens, long now)
    {
        if (NanosecondsUntil(tokens, now) != 0)
            return false;
        Int128 left = tokens;
        long burst = (long)Int128.Min(left, _burst);
        _burst -= burst;
        _budget -= left - burst;
        return true;
    }

    /// <summary>Puts tokens back that were taken for something that was not done. They never overfill the bucket.</summary>
    public void GiveBack(ulong tokens) => _budget = Int128.Min(_size, _budget + tokens);

    /// <summary>Nanoseconds until that many tokens can be taken, if nobody else takes any; 0 when they can be now.</summary>
    public long NanosecondsUntil(ulong tokens, long now)
    {
        Refill(now);
        Int128 needed = tokens;
        Int128 missing = Int128.Min(Int128.Max(needed - _burst, 0), _size) - _budget;
        // A burst that covers all of it asks nothing of the bucket, unless the bucket is in debt.
        if (missing <= 0)
            return 0;
        UInt128 wanted = ((UInt128)missing * _refill) - _fraction;
        UInt128 time = (wanted + (ulong)_size - 1) / (ulong)_size;
        return (long)UInt128.Min(UInt128.Max(time, 1), long.MaxValue);
    }

    private void Refill(long now)
    {
        if (now <= _refilled)
            return;
        UInt128 share = ((UInt128)(ulong)(now - _refilled) * (ulong)_size) + _fraction;
        _refilled = now;
        (UInt128 tokens, _fraction) = UInt128.DivRem(share, _refill);
        _budget += (Int128)tokens;
        if (_budget < _size)
            return;
        _budget = _size;
        _fraction = 0;
    }
}
