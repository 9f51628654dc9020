using Vmm.Core.Events;

namespace Vmm.Core.Tests.Events;

/// <summary>How loops begin and end. Alone, because it counts the descriptors and threads of the whole process.</summary>
[Collection(nameof(EventLoopLifeTests))]
public sealed class EventLoopLifeTests
{
    [Fact]
    public void Nothing_is_left_of_100_loops()
    {
        Make(); // Whatever is made once is made now.
        int descriptors = Count("fd");
        for (int i = 0; i < 100; i++)
            Make();
        Assert.Equal(descriptors, Count("fd"));
        Assert.DoesNotContain(Directory.GetDirectories("/proc/self/task"), t => NameOf(t) == "ends soon");
    }

    [Fact]
    public void Jobs_from_before_the_end_are_done_and_later_ones_refused()
    {
        var loop = new EventLoop("ends soon");
        int done = 0;
        using var go = new ManualResetEventSlim();
        loop.Post(go.Wait);
        for (int i = 0; i < 100; i++)
            loop.Post(() => done++);
        var ending = new Thread(loop.Dispose);
        ending.Start();
        go.Set();
        ending.Join();
        Assert.Equal(100, done);
        Assert.Throws<ObjectDisposedException>(() => loop.Invoke(() => done++));
        loop.Post(() => done++);
        Assert.Equal(100, done);
        loop.Dispose();
    }

    [Fact]
    public void A_handler_that_never_rests_does_not_keep_the_loop_from_its_end()
    {
        using var notifier = new EventNotifier();
        var loop = new EventLoop("ends soon");
        var handler = new EventLoopTests.Counter { Then = () => true };
        loop.Add(notifier.Number, handler);
        notifier.Signal();
        handler.WaitFor(10);
        loop.Dispose();
        int turns = handler.Turns;
        notifier.Signal();
        Assert.Equal(turns, handler.Turns);
    }

    [Fact]
    public void The_thread_has_its_name_and_starts_with_what_it_was_given()
    {
        bool there = false;
        using var loop = new EventLoop("event loop with a long name", null, () => there = true);
        string name = "";
        loop.Invoke(() => name = File.ReadAllText("/proc/thread-self/comm").Trim());
        Assert.True(there);
        Assert.Equal("event loop with a long name"[..15], name);
        Assert.Equal("event loop with a long name", loop.Name);
    }

    [Fact]
    public void A_notifier_that_was_disposed_of_does_nothing()
    {
        var notifier = new EventNotifier();
        Assert.False(notifier.TryConsume());
        notifier.Signal();
        notifier.Signal();
        Assert.True(notifier.TryConsume());
        Assert.False(notifier.TryConsume());
        notifier.Signal();
        notifier.Dispose();
        notifier.Signal();
        Assert.False(notifier.TryConsume());
        notifier.Dispose();
    }

    [Fact]
    public void An_action_that_fails_does_not_end_the_process()
    {
        var failures = new System.Collections.Concurrent.ConcurrentQueue<string>();
        using var loop = new EventLoop("goes on", e => failures.Enqueue(e.Message));
        loop.Post(() => throw new InvalidOperationException("a defect"));
        loop.Invoke(() => { });
        Assert.Equal("a defect", Assert.Single(failures));
        Assert.Throws<InvalidOperationException>(() => loop.Invoke(() => throw new InvalidOperationException("the caller's")));
        Assert.Single(failures);
    }

    private static void Make()
    {
        using var notifier = new EventNotifier();
        using var loop = new EventLoop("ends soon");
        var handler = new EventLoopTests.Counter();
        loop.Add(notifier.Number, handler);
        notifier.Signal();
        handler.WaitFor(1);
    }

    private static int Count(string what) => Directory.GetFileSystemEntries("/proc/self/" + what).Length;

    private static string NameOf(string task)
    {
        try
        {
            return File.ReadAllText(Path.Combine(task, "comm")).Trim();
        }
        catch (IOException)
        {
            return ""; // It ended meanwhile.
        }
    }
}

/// <summary>Not beside other tests.</summary>
[CollectionDefinition(nameof(EventLoopLifeTests), DisableParallelization = true)]
public sealed class EventLoopLifeCollection
{
}
