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
        using var notifier = new EventNotifier();
        using var theirs = new FileDescriptor(LibC.fcntl(notifier.Share(), LibC.F_DUPFD_CLOEXEC, 0));
        Assert.Equal(0, LibC.fcntl(theirs.Number, LibC.F_SETFL, LibC.O_RDWR));
        bool? consumed = null;
        var reader = new Thread(() => consumed = notifier.TryConsume()) { IsBackground = true };
        reader.Start();
        Assert.True(reader.Join(5_000), "It waits for a signal.");
        Assert.False(consumed);
        Fill(theirs);
        var writer = new Thread(notifier.Signal) { IsBackground = true };
        writer.Start();
        Assert.True(writer.Join(5_000), "It waits for room.");
        Assert.True(notifier.TryConsume());
    }

    private static unsafe void Fill(FileDescriptor file)
    {
        ulong most = ulong.MaxValue - 1;
        Assert.Equal(sizeof(ulong), LibC.write(file.Number, &most, sizeof(ulong)));
    }
}
