using FsCheck;
using FsCheck.Fluent;
using Vmm.Core;
using Vmm.Virtio.RateLimiting;

namespace Vmm.Virtio.Tests.RateLimiting;

public sealed class TokenBucketTests
{
    private const long Millisecond = 1_000_000;

    [Fact]
    public void A_full_bucket_gives_its_size_at_once_and_then_at_its_rate()
    {
        var bucket = new TokenBucket(new TokenBucketConfig(1000, 0, 100), 0);
        Assert.True(bucket.TryTake(1000, 0));
        Assert.False(bucket.TryTake(1, 0));
        Assert.Equal(10 * Millisecond, bucket.NanosecondsUntil(100, 0));
        Assert.False(bucket.TryTake(100, (10 * Millisecond) - 1));
        Assert.True(bucket.TryTake(100, 10 * Millisecond));
        Assert.False(bucket.TryTake(1, 10 * Millisecond));
    }

    [Fact]
    public void A_one_time_burst_is_taken_first_and_does_not_come_back()
    {
        var bucket = new TokenBucket(new TokenBucketConfig(10, 90, 1000), 0);
        Assert.True(bucket.TryTake(95, 0));
        Assert.True(bucket.TryTake(5, 0));
        Assert.False(bucket.TryTake(1, 0));
        Assert.True(bucket.TryTake(10, 3600_000 * Millisecond));
        Assert.False(bucket.TryTake(1, 3600_000 * Millisecond));
    }

    [Fact]
    public void A_request_larger_than_the_bucket_is_let_through_when_full_and_is_paid_for_afterwards()
    {
        var bucket = new TokenBucket(new TokenBucketConfig(100, 0, 100), 0);
        Assert.True(bucket.TryTake(1, 0));
        Assert.False(bucket.TryTake(1000, 0));
        Assert.Equal(Millisecond, bucket.NanosecondsUntil(1000, 0));
        Assert.True(bucket.TryTake(1000, Millisecond));
        Assert.Equal(901 * Millisecond, bucket.NanosecondsUntil(1, Millisecond));
        Assert.True(bucket.TryTake(1, 902 * Millisecond));
    }

    [Fact]
    public void What_was_given_back_can_be_taken_again_and_never_overfills()
    {
        var bucket = new TokenBucket(new TokenBucketConfig(100, 0, 100), 0);
        Assert.True(bucket.TryTake(100, 0));
        bucket.GiveBack(60);
        Assert.True(bucket.TryTake(60, 0));
        bucket.GiveBack(1000);
        Assert.Equal(100, bucket.Budget);
    }

    /// <summary>Whatever is asked and when: never more than size + burst + what the rate allows; and a wait that was told is exact.</summary>
    [Fact]
    public void It_never_gives_more_than_its_rate_and_its_waits_are_exact()
    {
        var steps = (from tokens in Gen.Choose(0, 5000) from pause in Gen.Choose(0, 3_000_000) select (Tokens: (ulong)tokens, Pause: (long)pause)).ListOf();
        var buckets = from size in Gen.Choose(1, 3000) from burst in Gen.Choose(0, 3000) from refill in Gen.Choose(1, 50) select new TokenBucketConfig((ulong)size, (ulong)burst, (ulong)refill);
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(300), Prop.ForAll(buckets.ToArbitrary(), steps.ToArbitrary(), (config, list) =>
        {
            var bucket = new TokenBucket(config, 0);
            long now = 0;
            UInt128 taken = 0;
            ulong largest = 0;
            foreach ((ulong tokens, long pause) in list)
            {
                now += pause;
                long wait = bucket.NanosecondsUntil(tokens, now);
                if (wait > 0)
                {
                    if (bucket.TryTake(tokens, now + wait - 1))
                        return false;
                    now += wait;
                }
                if (!bucket.TryTake(tokens, now))
                    return false;
                taken += tokens;
                largest = Math.Max(largest, tokens);
                UInt128 allowed = config.Size + config.OneTimeBurst + ((UInt128)now * config.Size / (config.RefillTime * 1_000_000)) + largest;
                if (taken > allowed)
                    return false;
            }
            return true;
        }));
    }

    [Fact]
    public void Many_small_refills_lose_nothing()
    {
        var bucket = new TokenBucket(new TokenBucketConfig(3, 0, 7), 0);
        Assert.True(bucket.TryTake(3, 0));
        long taken = 0;
        for (long now = 1; now <= 700 * Millisecond; now += 999)
        {
            if (bucket.TryTake(1, now))
                taken++;
        }
        Assert.InRange(taken, 299, 300);
    }

    [Theory]
    [InlineData(100UL, 0UL, 0UL)]
    [InlineData(0UL, 0UL, 100UL)]
    [InlineData(0UL, 5UL, 0UL)]
    [InlineData(ulong.MaxValue, 0UL, 100UL)]
    [InlineData(1UL, 0UL, ulong.MaxValue)]
    public void Numbers_that_cannot_be_meant_are_refused(ulong size, ulong burst, ulong refill) =>
        Assert.Throws<VmmException>(() => new TokenBucketConfig(size, burst, refill).Validate("bw"));

    [Fact]
    public void Extreme_limits_do_not_overflow()
    {
        var config = new TokenBucketConfig(long.MaxValue, long.MaxValue, TokenBucketConfig.MaximumRefillTime);
        config.Validate("bw");
        var bucket = new TokenBucket(config, 0);
        for (int i = 0; i < 100; i++)
            bucket.TryTake(ulong.MaxValue, long.MaxValue / 200 * i);
        Assert.True(bucket.NanosecondsUntil(ulong.MaxValue, long.MaxValue) >= 0);
        var slow = new TokenBucket(new TokenBucketConfig(1, 0, TokenBucketConfig.MaximumRefillTime), 0);
        Assert.True(slow.TryTake(ulong.MaxValue, 0));
        Assert.Equal(long.MaxValue, slow.NanosecondsUntil(1, 0));
    }
}
