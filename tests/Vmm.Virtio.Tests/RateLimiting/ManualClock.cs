namespace Vmm.Virtio.Tests.RateLimiting;

/// <summary>A clock that stands until it is moved, in nanoseconds.</summary>
internal sealed class ManualClock : TimeProvider
{
    private long _now = 1_000_000;

    public override long TimestampFrequency => 1_000_000_000;

    public override long GetTimestamp() => Volatile.Read(ref _now);

    public void Advance(long nanoseconds) => Interlocked.Add(ref _now, nanoseconds);
}
