using Vmm.Core.Events;
using Vmm.Virtio.RateLimiting;

namespace Vmm.Virtio.Tests.RateLimiting;

public sealed class RateLimiterTests
{
    private const long Millisecond = 1_000_000;

    [Fact]
    public void Both_buckets_must_agree_and_a_refusal_takes_from_neither()
    {
        var clock = new ManualClock();
        var limiter = new RateLimiter(new RateLimiterConfig(new TokenBucketConfig(1000, 0, 1000), new TokenBucketConfig(2, 0, 100)), clock);
        Assert.True(limiter.TryTake(900, out _));
        Assert.False(limiter.TryTake(200, out long wait));
        Assert.Equal(100 * Millisecond, wait);
        // The refused one left its operation: this is the second of two.
        Assert.True(limiter.TryTake(100, out _));
        clock.Advance(40 * Millisecond);
        Assert.False(limiter.TryTake(0, out wait));
        Assert.Equal(10 * Millisecond, wait);
        clock.Advance(10 * Millisecond);
        Assert.True(limiter.TryTake(0, out _));
    }

    [Fact]
    public void No_limit_is_no_limiter() => Assert.Null(RateLimiter.Create(default));

    [Fact]
    public void Nothing_is_allocated()
    {
        var limiter = new RateLimiter(new RateLimiterConfig(new TokenBucketConfig(1_000_000, 0, 1000), new TokenBucketConfig(1000, 0, 1000)));
        limiter.TryTake(1, out _);
        long before = ThreadAllocations.Start();
        for (int i = 0; i < 10_000; i++)
            limiter.TryTake(4096, out _);
        Assert.Equal(0, ThreadAllocations.Since(before));
    }

    [Fact]
    public void A_throttled_queue_is_woken_when_its_time_has_come()
    {
        using var loop = new EventLoop("throttle");
        using var woken = new ManualResetEventSlim();
        var limiter = new RateLimiter(new RateLimiterConfig(default, new TokenBucketConfig(1, 0, 20)));
        int queue = 0;
        QueueThrottle throttle = null!;
        loop.Invoke(() =>
        {
            throttle = new QueueThrottle(limiter, loop, q => { queue = q; woken.Set(); }, 3);
            Assert.True(throttle.TryTake(0));
            Assert.False(throttle.TryTake(0));
            Assert.True(throttle.IsThrottled);
        });
        Assert.True(woken.Wait(TimeSpan.FromSeconds(30)));
        Assert.Equal(3, queue);
        Assert.False(throttle.IsThrottled);
        throttle.Dispose();
    }
}
