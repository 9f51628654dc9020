using Vmm.Core.Events;

namespace Vmm.Core.Tests.Events;

/// <summary>The loops that serve devices. What is waited for comes, however slow the machine; what must not come is asked for after it would have.</summary>
public sealed class EventLoopTests : IDisposable
{
    private const int Seconds = 60;

    private readonly List<Exception> _failures = [];
    private readonly EventLoop _loop;

    public EventLoopTests() => _loop = new EventLoop("event loop test", _failures.Add);

    public void Dispose() => _loop.Dispose();

    [Fact]
    public void A_handler_is_called_for_each_signal_and_not_again_without_one()
    {
        using var notifier = new EventNotifier();
        var handler = new Counter();
        _loop.Add(notifier.Number, handler);
        for (int i = 1; i <= 100; i++)
        {
            notifier.Signal(); // Nobody reads it: only the edge counts.
            handler.WaitFor(i);
            Settle();
            Assert.Equal(i, handler.Turns);
        }
    }

    [Fact]
    public void What_was_ready_before_it_was_watched_is_served()
    {
        using var notifier = new EventNotifier();
        notifier.Signal();
        var handler = new Counter();
        _loop.Add(notifier.Number, handler);
        handler.WaitFor(1);
    }

    [Fact]
    public void The_last_signal_is_never_lost()
    {
        using var notifier = new EventNotifier();
        int written = 0, seen = 0;
        var handler = new Counter();
        handler.Then = () =>
        {
            Volatile.Write(ref seen, Volatile.Read(ref written));
            return false;
        };
        _loop.Add(notifier.Number, handler);
        for (int i = 1; i <= 20_000; i++)
        {
            Volatile.Write(ref written, i);
            notifier.Signal();
            if (i % 1000 == 0)
                Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref seen) == i, TimeSpan.FromSeconds(Seconds)), $"{seen} of {i}");
        }
    }

    [Fact]
    public void A_flood_from_one_does_not_starve_another()
    {
        using var flood = new EventNotifier();
        using var other = new EventNotifier();
        var flooding = new Counter();
        var served = new Counter();
        int signalledAt = 0, worst = 0;
        flooding.Then = () =>
        {
            // All on the loop's thread: how many turns it had itself since the other became ready.
            if (signalledAt == 0)
            {
                signalledAt = flooding.Turns;
                other.Signal();
            }
            return true;
        };
        served.Then = () =>
        {
            worst = Math.Max(worst, flooding.Turns - signalledAt);
            signalledAt = 0;
            return false;
        };
        _loop.Add(other.Number, served);
        _loop.Add(flood.Number, flooding);
        flood.Signal();
        served.WaitFor(1000);
        Assert.True(_loop.Remove(flood.Number));
        Assert.InRange(worst, 1, 2);
    }

    [Fact]
    public void Those_that_flood_share_the_turns_and_jobs_run_between_them()
    {
        const int count = 100; // More than one epoll_wait gives.
        var notifiers = new List<EventNotifier>();
        var handlers = new List<Counter>();
        for (int i = 0; i < count; i++)
        {
            notifiers.Add(new EventNotifier());
            handlers.Add(new Counter { Then = () => true });
            _loop.Add(notifiers[i].Number, handlers[i]);
        }
        // Made ready together, so that all begin in the same few rounds.
        int most = 0, least = 0;
        _loop.Invoke(() => notifiers.ForEach(n => n.Signal()));
        foreach (Counter handler in handlers)
            handler.WaitFor(1000);
        _loop.Invoke(() => (most, least) = (handlers.Max(h => h.Turns), handlers.Min(h => h.Turns)));
        Assert.InRange(most - least, 0, 3);
        for (int i = 0; i < count; i++)
        {
            Assert.True(_loop.Remove(notifiers[i].Number));
            notifiers[i].Dispose();
        }
    }

    [Fact]
    public void After_remove_a_handler_does_not_run()
    {
        using var notifier = new EventNotifier();
        using var stop = new CancellationTokenSource();
        var signaller = new Thread(() =>
        {
            while (!stop.IsCancellationRequested)
                notifier.Signal();
        });
        signaller.Start();
        for (int i = 0; i < 200; i++)
        {
            var handler = new Counter { Then = () => true };
            _loop.Add(notifier.Number, handler);
            handler.WaitFor(2);
            Assert.True(_loop.Remove(notifier.Number));
            int turns = handler.Turns;
            Assert.False(_loop.Remove(notifier.Number));
            Settle();
            Assert.Equal(turns, handler.Turns);
        }
        stop.Cancel();
        signaller.Join();
    }

    [Fact]
    public void A_handler_may_remove_itself_and_others_that_are_ready()
    {
        using var first = new EventNotifier();
        using var second = new EventNotifier();
        var handlers = new Counter[2];
        // Whichever runs first removes both: the other one was ready in the same round.
        bool RemoveBoth()
        {
            Assert.True(_loop.Remove(first.Number));
            Assert.True(_loop.Remove(second.Number));
            return true;
        }
        handlers[0] = new Counter { Then = RemoveBoth };
        handlers[1] = new Counter { Then = RemoveBoth };
        _loop.Add(first.Number, handlers[0]);
        _loop.Add(second.Number, handlers[1]);
        _loop.Invoke(() =>
        {
            first.Signal();
            second.Signal();
        });
        Settle();
        Assert.Equal(1, handlers[0].Turns + handlers[1].Turns);
        Assert.Empty(_failures);
    }

    [Fact]
    public void A_descriptor_that_was_removed_can_be_added_again()
    {
        using var notifier = new EventNotifier();
        var before = new Counter();
        var after = new Counter();
        _loop.Add(notifier.Number, before);
        _loop.Invoke(() =>
        {
            // Ready for the first handler, which is gone before its turn.
            notifier.Signal();
            Assert.True(_loop.Remove(notifier.Number));
            _loop.Add(notifier.Number, after);
        });
        after.WaitFor(1);
        Assert.Equal(0, before.Turns);
    }

    [Fact]
    public void Schedule_gives_a_turn_and_many_of_it_give_one()
    {
        using var notifier = new EventNotifier();
        var handler = new Counter();
        _loop.Add(notifier.Number, handler);
        _loop.Invoke(() =>
        {
            for (int i = 0; i < 10; i++)
                _loop.Schedule(notifier.Number);
            _loop.Schedule(12345);
        });
        handler.WaitFor(1);
        Settle();
        Assert.Equal(1, handler.Turns);
    }

    [Fact]
    public void Invoke_runs_on_the_thread_and_passes_exceptions_on()
    {
        bool there = false;
        _loop.Invoke(() =>
        {
            there = _loop.IsCurrent;
            // At once, or it would wait for itself.
            _loop.Invoke(() => there &= _loop.IsCurrent);
        });
        Assert.True(there);
        Assert.False(_loop.IsCurrent);
        InvalidTimeZoneException thrown = Assert.Throws<InvalidTimeZoneException>(() => _loop.Invoke(() => throw new InvalidTimeZoneException("mine")));
        Assert.Equal("mine", thrown.Message);
        _loop.Invoke(() => there = false);
        Assert.False(there);
        Assert.Empty(_failures);
    }

    [Fact]
    public void Jobs_of_one_thread_run_in_order_and_those_of_many_all_run()
    {
        var order = new List<int>();
        for (int i = 0; i < 1000; i++)
        {
            int number = i;
            if (i % 10 == 9)
                _loop.Invoke(() => order.Add(number));
            else
                _loop.Post(() => order.Add(number));
        }
        Settle();
        Assert.Equal(Enumerable.Range(0, 1000), order);
        int sum = 0;
        Thread[] threads = [.. Enumerable.Range(0, 4).Select(_ => new Thread(() =>
        {
            for (int i = 0; i < 1000; i++)
                _loop.Invoke(() => sum++); // Only the loop's thread touches it.
        }))];
        Array.ForEach(threads, t => t.Start());
        Array.ForEach(threads, t => t.Join());
        Assert.Equal(4000, sum);
    }

    [Fact]
    public void A_descriptor_that_cannot_be_watched_is_refused()
    {
        Assert.Throws<VmmException>(() => _loop.Add(-1, new Counter()));
        using var notifier = new EventNotifier();
        var handler = new Counter();
        _loop.Add(notifier.Number, handler);
        Assert.Throws<VmmException>(() => _loop.Add(notifier.Number, new Counter()));
        notifier.Signal();
        handler.WaitFor(1);
    }

    [Fact]
    public void A_handler_that_throws_is_told_of_and_not_called_again_and_the_others_go_on()
    {
        using var bad = new EventNotifier();
        using var good = new EventNotifier();
        var throwing = new Counter { Then = () => throw new InvalidTimeZoneException("mine") };
        var other = new Counter();
        _loop.Add(bad.Number, throwing);
        _loop.Add(good.Number, other);
        for (int i = 1; i <= 3; i++)
        {
            bad.Signal();
            good.Signal();
            other.WaitFor(i);
            Settle();
        }
        Assert.Equal(1, throwing.Turns);
        Assert.IsType<InvalidTimeZoneException>(Assert.Single(_failures));
        Assert.True(_loop.Remove(bad.Number));
    }

    [Fact]
    public void Nothing_is_allocated_for_a_turn()
    {
        using var notifier = new EventNotifier();
        var handler = new Counter();
        long before = 0, allocated = -1;
        handler.Then = () =>
        {
            if (handler.Turns == 5000)
                before = ThreadAllocations.Start();
            if (handler.Turns == 10_000)
                allocated = ThreadAllocations.Since(before);
            if (handler.Turns % 2 == 0)
                notifier.Signal();
            return handler.Turns % 2 == 1;
        };
        _loop.Add(notifier.Number, handler);
        notifier.Signal();
        handler.WaitFor(10_001);
        Assert.True(_loop.Remove(notifier.Number));
        Assert.Equal(0, allocated);
    }

    /// <summary>Returns after the loop has looked at its descriptors once and served what was ready before.</summary>
    private void Settle()
    {
        _loop.Invoke(() => { });
        _loop.Invoke(() => { });
    }

    internal sealed class Counter : IEventHandler
    {
        private int _turns;

        public Func<bool>? Then { get; set; }

        public int Turns => Volatile.Read(ref _turns);

        public bool Handle()
        {
            Volatile.Write(ref _turns, _turns + 1);
            return Then?.Invoke() ?? false;
        }

        public void WaitFor(int turns) =>
            Assert.True(SpinWait.SpinUntil(() => Turns >= turns, TimeSpan.FromSeconds(Seconds)), $"{Turns} of {turns} turns in {Seconds} s.");
    }
}
