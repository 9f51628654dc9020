using Vmm.Core.Events;
using Vmm.Core.Locking;

namespace Vmm.Core.Tests.Locking;

/// <summary>The witness finds what it is there for. In a thread of its own, so that what is held by mistake is nobody's.</summary>
public sealed class LockWitnessTests
{
    [Fact]
    public void It_watches_in_tests() => Assert.True(LockWitness.IsOn);

    [Fact]
    public void Locks_in_their_order_are_nothing_to_tell() => Assert.Null(Caught(() =>
    {
        using (new OrderedLock(LockRank.Machine).Enter())
        using (new OrderedLock(LockRank.Transport).Enter())
        using (new OrderedLock(LockRank.SharedMemory).Enter())
        {
        }
        LockWitness.RequireNone("waits for a peer");
    }));

    [Theory]
    [InlineData(nameof(LockRank.SharedMemory), nameof(LockRank.Transport))]
    [InlineData(nameof(LockRank.Transport), nameof(LockRank.Transport))]
    public void A_lock_out_of_order_is_found(string held, string wanted)
    {
        string? message = Caught(() =>
        {
            using (new OrderedLock(Enum.Parse<LockRank>(held)).Enter())
            using (new OrderedLock(Enum.Parse<LockRank>(wanted)).Enter())
            {
            }
        });
        Assert.Contains($"takes the lock of {wanted} while it holds that of {held}", message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_lock_that_is_held_while_somebody_is_waited_for_is_found()
    {
        string? message = Caught(() =>
        {
            using (new OrderedLock(LockRank.Configuration).Enter())
                LockWitness.RequireNone("waits for a back-end");
        });
        Assert.Contains("waits for a back-end while it holds the lock of Configuration", message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_handler_that_returns_with_a_lock_is_found()
    {
        Exception? failed = null;
        using var told = new ManualResetEventSlim();
        using (var loop = new EventLoop("witness", failed: e =>
        {
            failed = e;
            told.Set();
        }))
        using (var bell = new EventNotifier())
        {
            loop.Invoke(() => loop.Add(bell.Number, new Forgetful()));
            bell.Signal();
            Assert.True(told.Wait(TimeSpan.FromSeconds(30)));
        }
        Assert.Contains("returns from a handler of events", failed?.Message, StringComparison.Ordinal);
    }

    private static string? Caught(Action action)
    {
        string? message = null;
        var thread = new Thread(() =>
        {
            try
            {
                action();
            }
            catch (SynchronizationLockException e)
            {
                message = e.Message;
            }
        });
        thread.Start();
        thread.Join();
        return message;
    }

    private sealed class Forgetful : IEventHandler
    {
        public bool Handle()
        {
            _ = new OrderedLock(LockRank.Transport).Enter();
            return false;
        }
    }
}
