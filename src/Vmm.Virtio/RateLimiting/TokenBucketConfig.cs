using Vmm.Core;

namespace Vmm.Virtio.RateLimiting;

/// <summary>A token bucket: tokens are taken for what is done, and come back at a constant rate up to a limit.</summary>
/// <param name="Size">Tokens when it is full: what may be done at once, and what comes back in one refill time. 0: no limit.</param>
/// <param name="OneTimeBurst">Tokens on top that are taken first and never come back.</param>
/// <param name="RefillTime">Milliseconds in which an empty bucket fills up. 0: no limit.</param>
public readonly record struct TokenBucketConfig(ulong Size, ulong OneTimeBurst, ulong RefillTime)
{
    /// <summary>The longest refill time, in milliseconds: a day. A longer one is a mistake in units.</summary>
    public const ulong MaximumRefillTime = 24 * 60 * 60 * 1000;

    /// <summary>Whether it limits anything.</summary>
    public bool IsLimit => Size != 0 && RefillTime != 0;

    /// <summary>Refuses numbers that cannot be meant.</summary>
    /// <param name="option">The option's name, for the message: <c>bw</c>.</param>
    /// <exception cref="VmmException">They are wrong.</exception>
    public void Validate(string option)
    {
        if (Size > long.MaxValue || OneTimeBurst > long.MaxValue)
            throw VmmException.Configuration($"The rate limit {option}_size={Size},{option}_one_time_burst={OneTimeBurst} is too large: the most is {long.MaxValue}.");
        if (RefillTime > MaximumRefillTime)
            throw VmmException.Configuration($"The rate limit {option}_refill_time={RefillTime} is too long: it is in milliseconds, at most {MaximumRefillTime} (a day).");
        if ((Size == 0) != (RefillTime == 0))
            throw VmmException.Configuration($"A rate limit takes both {option}_size and {option}_refill_time (milliseconds); give the one that is missing, or neither.");
        if (OneTimeBurst != 0 && Size == 0)
            throw VmmException.Configuration($"{option}_one_time_burst needs {option}_size and {option}_refill_time.");
    }
}
