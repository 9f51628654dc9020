using Vmm.Core.Events;

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
}
