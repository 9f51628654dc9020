using Vmm.Machine.Console;

namespace Vmm.Machine.Tests.Console;

/// <summary>Producers that must not wait: they are told what was taken, and when to come back.</summary>
public sealed class OutputRingTests : IDisposable
{
    private readonly WakeEvent _wake = new();

    public void Dispose() => _wake.Dispose();

    [Fact]
    public void A_full_ring_takes_what_fits_and_tells_once_when_half_is_free()
    {
        int told = 0;
        var ring = new OutputRing(_wake, 100) { RoomAvailable = () => told++ };
        byte[] data = new byte[130];
        new Random(1).NextBytes(data);
        Assert.Equal(60, ring.TryAppend(data.AsSpan(0, 60)));
        Assert.Equal(40, ring.TryAppend(data.AsSpan(60)));
        Assert.Equal(0, ring.TryAppend(data.AsSpan(100)));
        Assert.True(ring.Peek()[..49].SequenceEqual(data.AsSpan(0, 49)));
        ring.Advance(49);
        Assert.Equal(0, told);
        ring.Advance(1);
        Assert.Equal(1, told);
        ring.Advance(10);
        Assert.Equal(1, told);
        // Across the end of the buffer.
        Assert.Equal(30, ring.TryAppend(data.AsSpan(100)));
        Assert.True(ring.Peek().SequenceEqual(data.AsSpan(60, 40)));
        ring.Advance(40);
        Assert.True(ring.Peek().SequenceEqual(data.AsSpan(100)));
        ring.Advance(30);
        Assert.Equal(1, told);
        Assert.True(ring.Peek().IsEmpty);
    }

    [Fact]
    public void A_producer_that_goes_on_when_told_loses_nothing()
    {
        byte[] data = new byte[3_000_000];
        new Random(2).NextBytes(data);
        using var room = new AutoResetEvent(false);
        var ring = new OutputRing(_wake, 1000) { RoomAvailable = () => room.Set() };
        var producer = new Thread(() =>
        {
            for (int done = 0; done < data.Length;)
            {
                int length = Math.Min(data.Length - done, 1 + (done % 1700));
                int taken = ring.TryAppend(data.AsSpan(done, length));
                done += taken;
                if (taken < length && !room.WaitOne(30_000))
                    return;
            }
            ring.Complete();
        });
        producer.Start();
        int got = 0;
        while (true)
        {
            ReadOnlySpan<byte> bytes = ring.Peek();
            if (bytes.IsEmpty)
            {
                if (ring.Completed && ring.Peek().IsEmpty)
                    break;
                var wait = new Vmm.Core.Interop.pollfd { fd = _wake.Number, events = Vmm.Core.Interop.LibC.POLLIN };
                unsafe
                {
                    Assert.Equal(1, Vmm.Core.Interop.LibC.poll(&wait, 1, 30_000));
                }
                _wake.Clear();
                continue;
            }
            int part = Math.Min(bytes.Length, 1 + (got % 333));
            Assert.True(bytes[..part].SequenceEqual(data.AsSpan(got, part)));
            ring.Advance(part);
            got += part;
        }
        Assert.Equal(data.Length, got);
        producer.Join();
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void When_the_machine_ends_everything_is_taken_and_whoever_waits_is_told(bool discard)
    {
        int told = 0;
        var ring = new OutputRing(_wake, 10) { RoomAvailable = () => told++ };
        Assert.Equal(10, ring.TryAppend("0123456789ab"u8));
        if (discard)
            ring.Discard();
        else
            ring.LetGo();
        Assert.Equal(1, told);
        Assert.Equal(2, ring.TryAppend("ab"u8));
        Assert.Equal(discard ? "" : "0123456789", System.Text.Encoding.ASCII.GetString(ring.Peek()));
    }
}
