using Vmm.Core.Events;
using Vmm.Core.Interop;

namespace Vmm.Core.Tests.Events;

public sealed class EventNotifierTests
{
    [Fact]
    public void A_signal_waits_until_it_is_consumed()
    {
        using var notifier = new EventNotifier();
        Assert.False(notifier.IsSignalled);
        notifier.Signal();
        notifier.Signal();
        Assert.True(notifier.IsSignalled);
        Assert.True(notifier.IsSignalled);
        Assert.True(notifier.TryConsume());
        Assert.False(notifier.IsSignalled);
        Assert.False(notifier.TryConsume());
    }

    [Fact]
    public void Disposed_of_it_does_nothing()
    {
        var notifier = new EventNotifier();
        notifier.Signal();
        notifier.Dispose();
        notifier.Signal();
        Assert.False(notifier.IsSignalled);
        Assert.False(notifier.TryConsume());
    }

    [Fact]
    public void Another_process_that_makes_it_blocking_makes_nobody_wait()
    {
        using var notifier = new EventNotifier(isShared: true);
        using var theirs = new FileDescriptor(LibC.fcntl(notifier.Share(), LibC.F_DUPFD_CLOEXEC, 0));
        Assert.Equal(0, LibC.fcntl(theirs.Number, LibC.F_SETFL, LibC.O_RDWR));
        bool? consumed = null;
        var reader = new Thread(() => consumed = notifier.TryConsume()) { IsBackground = true };
        reader.Start();
        Assert.True(reader.Join(5_000), "It waits for a signal.");
        Assert.False(consumed);
        Assert.True(TryFill(theirs.Number));
        var writer = new Thread(notifier.Signal) { IsBackground = true };
        writer.Start();
        Assert.True(writer.Join(5_000), "It waits for room.");
        Assert.True(notifier.TryConsume());
    }

    [Fact]
    public void One_that_is_shared_counts_its_signals_as_any_other()
    {
        using var notifier = new EventNotifier(isShared: true);
        Assert.False(notifier.IsSignalled);
        var threads = new Thread[8];
        for (int i = 0; i < threads.Length; i++)
        {
            threads[i] = new Thread(() =>
            {
                for (int j = 0; j < 1_000; j++)
                    notifier.Signal();
            });
            threads[i].Start();
        }
        foreach (Thread thread in threads)
            thread.Join();
        Assert.Equal(8_000UL, Read(notifier.Number));
    }

    [Fact]
    public void Another_process_that_fills_it_between_a_look_and_a_signal_makes_nobody_wait()
    {
        using var notifier = new EventNotifier(isShared: true);
        using var theirs = new FileDescriptor(LibC.fcntl(notifier.Share(), LibC.F_DUPFD_CLOEXEC, 0));
        long sent = 0;
        bool stop = false;
        var signals = new Thread(() =>
        {
            while (!Volatile.Read(ref stop))
            {
                notifier.Signal();
                Volatile.Write(ref sent, sent + 1);
            }
        })
        { IsBackground = true };
        signals.Start();
        for (int round = 0; round < 5_000; round++)
        {
            // There is room for a moment, and then none, and whoever comes too late would wait.
            Assert.Equal(0, LibC.fcntl(theirs.Number, LibC.F_SETFL, LibC.O_RDWR | LibC.O_NONBLOCK));
            do
                _ = Read(theirs.Number);
            while (!TryFill(theirs.Number));
            Assert.Equal(0, LibC.fcntl(theirs.Number, LibC.F_SETFL, LibC.O_RDWR));
            long before = Volatile.Read(ref sent);
            Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref sent) > before + 1, 10_000), $"It waits for room in round {round}.");
        }
        Volatile.Write(ref stop, true);
        signals.Join();
    }

    [Fact]
    public void One_that_was_not_made_to_be_shared_is_not_given_away()
    {
        using var notifier = new EventNotifier();
        Assert.Throws<InvalidOperationException>(() => notifier.Share());
    }

    private static unsafe ulong Read(int file)
    {
        ulong count = 0;
        _ = LibC.read(file, &count, sizeof(ulong));
        return count;
    }

    /// <summary>So that not even one more fits; false where something is in it.</summary>
    private static unsafe bool TryFill(int file)
    {
        ulong most = ulong.MaxValue - 1;
        return LibC.write(file, &most, sizeof(ulong)) == sizeof(ulong);
    }
}
