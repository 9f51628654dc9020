using Vmm.Core.Events;
using Vmm.Machine.Configuration;

namespace Vmm.Machine.Tests;

/// <summary>Which device is served by which thread.</summary>
public sealed class IoThreadsTests
{
    [Fact]
    public void Each_life_hands_the_threads_out_from_the_first_on()
    {
        using var threads = new IoThreads(new IoThreadsConfig(2, []), e => Assert.Fail(e.Message));
        EventLoop[][] first = Life();
        Assert.Equal(["io0"], first[0].Select(loop => loop.Name));
        Assert.Equal(["io1", "io0"], first[1].Select(loop => loop.Name));
        Assert.Equal(first, Life());

        EventLoop[][] Life()
        {
            threads.Begin();
            return [threads.Take(1), threads.Take(4)];
        }
    }

    [Fact]
    public void A_defect_on_a_thread_is_told_and_the_thread_goes_on()
    {
        string? told = null;
        using var threads = new IoThreads(new IoThreadsConfig(1, []), e => told = e.Message);
        EventLoop loop = threads.Take(1)[0];
        using var notifier = new EventNotifier();
        loop.Add(notifier.Number, new Defect());
        notifier.Signal();
        Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref told) == "a defect", 30_000));
        loop.Invoke(() => { });
    }

    [Fact]
    public void A_relay_has_a_thread_of_its_own_only_where_there_is_no_other()
    {
        using var some = new IoThreads(new IoThreadsConfig(2, []), e => Assert.Fail(e.Message));
        Assert.Same(some.Loops[0], some.Relay());
        string? told = null;
        var none = new IoThreads(new IoThreadsConfig(0, []), e => told = e.Message);
        EventLoop loop = none.Relay();
        Assert.Same(loop, none.Relay());
        Assert.Equal("relay", loop.Name);
        loop.Post(() => throw new InvalidOperationException("a defect"));
        loop.Invoke(() => { });
        Assert.Equal("a defect", told);
        none.Dispose();
        Assert.Throws<ObjectDisposedException>(() => loop.Invoke(() => { }));
    }

    private sealed class Defect : IEventHandler
    {
        public bool Handle() => throw new InvalidOperationException("a defect");
    }
}
