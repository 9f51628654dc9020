using Vmm.Core.Events;
using Vmm.Virtio.Devices.Block;
using Vmm.Virtio.Queues;
using Vmm.Virtio.RateLimiting;
using Vmm.Virtio.Tests.Driver;
using Vmm.Virtio.Tests.RateLimiting;

namespace Vmm.Virtio.Tests.Devices.Block;

/// <summary>These count what the whole process has, so nothing else runs meanwhile.</summary>
[CollectionDefinition(nameof(BlockLoadTests), DisableParallelization = true)]
public sealed class BlockLoadCollection;

/// <summary>Many requests at once: none is lost, whatever happens meanwhile, nothing leaks and nothing is allocated.</summary>
[Collection(nameof(BlockLoadTests))]
public sealed class BlockLoadTests
{
    public static TheoryData<BlockEngineKind, int> Ways
    {
        get
        {
            var ways = new TheoryData<BlockEngineKind, int>();
            foreach (int rings in (int[])[0, 1, 14, 15])
            {
                ways.Add(BlockEngineKind.Sync, rings);
                ways.Add(BlockEngineKind.IoUring, rings);
            }
            return ways;
        }
    }

    [SkippableTheory]
    [MemberData(nameof(Ways))]
    public void A_stop_under_load_loses_no_request(BlockEngineKind engine, int rings)
    {
        TemporaryImage.NeedsEngine(engine);
        const int slots = 32, length = 16 * 1024;
        using TemporaryImage image = TemporaryImage.Make(slots * length);
        using var guest = new BlockGuest(BlockGuest.Config(image.Path, engine), RingFeatures.Of(rings));
        byte[] model = new byte[slots * length];
        var random = new Random(4);
        DriverQueue queue = guest.Driver.Queues[0];
        for (int round = 0; round < 30; round++)
        {
            var inFlight = new Dictionary<int, BlockInFlight>();
            for (int i = 0; i < slots; i++)
            {
                byte[] data = new byte[length];
                random.NextBytes(data);
                data.CopyTo(model, i * length);
                BlockInFlight request = guest.Add(1, (ulong)(i * length / 512), data, 0)!;
                inFlight.Add(request.Token, request);
                if (i % 8 == 0)
                    queue.Kick();
            }
            queue.Kick();
            guest.Driver.Restart();
            while (inFlight.Count > 0)
            {
                UsedBuffer used = queue.WaitUsed();
                Assert.True(inFlight.Remove(used.Token, out BlockInFlight? request));
                Assert.Equal(BlockStatus.Ok, guest.Finish(request, used, 0).Code);
            }
        }
        Assert.Equal(model, image.Content());
        Assert.Equal(30 * slots, guest.Counter("writes"));
    }

    [SkippableTheory]
    [InlineData(BlockEngineKind.Sync)]
    [InlineData(BlockEngineKind.IoUring)]
    public void A_hundred_resets_under_load_leak_nothing(BlockEngineKind engine)
    {
        TemporaryImage.NeedsEngine(engine);
        using TemporaryImage image = TemporaryImage.Make(1 << 20);
        BlockConfig config = BlockGuest.Config(image.Path, engine) with
        {
            NumQueues = 2,
            RateLimiter = new RateLimiterConfig(new TokenBucketConfig(1 << 30, 0, 1000), default),
        };
        using var guest = new BlockGuest(config, RingFeatures.Of(14), loops: 2);
        guest.Driver.Reset();
        int before = Descriptors();
        for (int round = 0; round < 100; round++)
        {
            guest.Driver.Start();
            if (round == 0)
                Assert.True(Descriptors() > before, "A running queue has descriptors of its own.");
            foreach (DriverQueue queue in guest.Driver.Queues)
            {
                for (int i = 0; i < 16; i++)
                    guest.Add(1, (ulong)(i * 8), new byte[4096], 0, queue: queue.Index);
                queue.Kick();
            }
            VirtQueueState[] states = guest.Driver.Stop();
            Assert.All(states, s => Assert.Equal(s.NextAvailable, s.NextUsed));
            guest.Driver.Reset();
        }
        Assert.Equal(before, Descriptors());
        Assert.Empty(guest.Driver.Host.ResetReasons);
    }

    [SkippableTheory]
    [InlineData(BlockEngineKind.Sync, 0)]
    [InlineData(BlockEngineKind.IoUring, 0)]
    [InlineData(BlockEngineKind.IoUring, 15)]
    public void Four_queues_on_two_loops_serve_four_processors(BlockEngineKind engine, int rings)
    {
        TemporaryImage.NeedsEngine(engine);
        const int queues = 4, perQueue = 256 * 1024, rounds = 40, depth = 16, length = perQueue / depth;
        using TemporaryImage image = TemporaryImage.Make(queues * perQueue);
        using var guest = new BlockGuest(BlockGuest.Config(image.Path, engine) with { NumQueues = queues }, RingFeatures.Of(rings), loops: 2);
        byte[] model = new byte[queues * perQueue];
        // All memory first: a test's arena is for one thread.
        ulong[] memory = [.. Enumerable.Range(0, queues * depth).Select(_ => guest.Driver.Arena.Allocate(length + 17))];
        var threads = new Thread[queues];
        var errors = new System.Collections.Concurrent.ConcurrentQueue<Exception>();
        for (int q = 0; q < queues; q++)
        {
            int index = q;
            threads[q] = new Thread(() =>
            {
                try
                {
                    Drive(guest.Driver, index, memory.AsSpan(index * depth, depth), model.AsSpan(index * perQueue, perQueue), rounds, length);
                }
                catch (Exception e)
                {
                    errors.Enqueue(e);
                }
            });
            threads[q].Start();
        }
        foreach (Thread thread in threads)
            thread.Join();
        Assert.Empty(errors);
        Assert.Equal(model, image.Content());
        Assert.Equal(queues * depth * rounds, guest.Counter("writes"));
    }

    [SkippableTheory]
    [InlineData(BlockEngineKind.Sync, false)]
    [InlineData(BlockEngineKind.IoUring, false)]
    [InlineData(BlockEngineKind.IoUring, true)]
    public void A_request_allocates_nothing(BlockEngineKind engine, bool bounced)
    {
        TemporaryImage.NeedsEngine(engine);
        const int depth = 16;
        using TemporaryImage image = TemporaryImage.Make(1 << 20);
        image.NeedsDirect(bounced);
        using var guest = new BlockGuest(BlockGuest.Config(image.Path, engine, direct: bounced));
        guest.Driver.Reset();
        // A transport that writes nothing down, and a driver that looks instead of waiting.
        guest.Device.Activate(new VirtioActivation(guest.Driver.Features, guest.Driver.Memory, new SilentHost()));
        DriverQueue queue = guest.Driver.Queues[0];
        guest.Device.StartQueue(queue.Setup(VirtQueueState.Initial));
        queue.DisableInterrupts();
        ulong memory = guest.Driver.Arena.Allocate((depth + 1) * 8192);
        void Requests(int count)
        {
            int added = 0, ended = 0;
            while (ended < count)
            {
                while (added < count && added - ended < depth)
                {
                    ulong at = memory + ((ulong)(added % depth) * 8192);
                    guest.Driver.Memory.Write(at, (uint)(added & 1));
                    guest.Driver.Memory.Write(at + 8, (ulong)(added % 200) * 8);
                    ulong data = at + (bounced ? 2048u + 3 : 4096u);
                    queue.Add([new(at, 16), new(data, 4096, (added & 1) == 0), new(at + 16, 1, true)]);
                    added++;
                }
                queue.Kick();
                if (queue.TryGetUsed(out _))
                    ended++;
                else
                    Thread.Yield();
            }
        }
        Requests(3000);
        long before = 0, allocated = -1;
        guest.Loop.Invoke(() => before = ThreadAllocations.Start());
        Requests(10_000);
        guest.Loop.Invoke(() => allocated = ThreadAllocations.Since(before));
        Assert.Equal(0, allocated);
        Assert.Equal(bounced, guest.Counter("bounced") > 0);
        Assert.Equal(13_000, guest.Counter("reads") + guest.Counter("writes"));
        guest.Driver.Reset();
    }

    [SkippableTheory]
    [InlineData(BlockEngineKind.Sync, 0)]
    [InlineData(BlockEngineKind.IoUring, 15)]
    public void A_rate_limit_holds_requests_back_until_their_time(BlockEngineKind engine, int rings)
    {
        TemporaryImage.NeedsEngine(engine);
        using TemporaryImage image = TemporaryImage.Make(1 << 20);
        var clock = new ManualClock();
        BlockConfig config = BlockGuest.Config(image.Path, engine) with
        {
            RateLimiter = new RateLimiterConfig(new TokenBucketConfig(8192, 0, 20), new TokenBucketConfig(100, 0, 20)),
        };
        using var guest = new BlockGuest(config, RingFeatures.Of(rings), clock: clock);
        DriverQueue queue = guest.Driver.Queues[0];
        for (int i = 0; i < 5; i++)
            Assert.NotNull(guest.Add(0, 0, [], 4096));
        queue.Kick();
        for (int expected = 2; expected <= 5; expected++)
        {
            guest.Driver.Host.WaitUntil(() =>
            {
                queue.EnableInterrupts();
                while (queue.TryGetUsed(out _))
                {
                }
                return queue.InFlight <= 5 - expected;
            });
            // Rings and turns of the queue do not let more through than the clock does.
            queue.Doorbell.Signal();
            guest.Loop.Invoke(() => { });
            guest.Loop.Invoke(() => { });
            Assert.Equal(expected, guest.Counter("reads"));
            Assert.Equal(5 - expected, queue.InFlight);
            clock.Advance(10_000_000);
        }
        Assert.True(guest.Counter("throttled") >= 1);
    }

    [SkippableTheory]
    [InlineData(BlockEngineKind.Sync)]
    [InlineData(BlockEngineKind.IoUring)]
    public void A_limit_on_file_sizes_is_an_io_error_and_not_the_end_of_the_process(BlockEngineKind engine)
    {
        TemporaryImage.NeedsEngine(engine);
        using TemporaryImage image = TemporaryImage.Make(256 << 20);
        using var guest = new BlockGuest(BlockGuest.Config(image.Path, engine));
        string pid = Environment.ProcessId.ToString();
        Skip.If(TemporaryImage.Run("prlimit", "--pid", pid, "--fsize=134217728:") == null, "prlimit does not work here");
        try
        {
            Assert.Equal(BlockStatus.IoError, guest.Write((200 << 20) / 512, new byte[4096]));
            Assert.Contains("File too large", Assert.Single(guest.Reports), StringComparison.Ordinal);
            Assert.Equal(BlockStatus.Ok, guest.Write((100 << 20) / 512, new byte[4096]));
        }
        finally
        {
            Assert.NotNull(TemporaryImage.Run("prlimit", "--pid", pid, "--fsize=unlimited:"));
        }
        Assert.Equal(BlockStatus.Ok, guest.Write((200 << 20) / 512, new byte[4096]));
    }

    [Fact]
    public void A_throttled_queue_stops_with_its_requests_still_in_it()
    {
        using TemporaryImage image = TemporaryImage.Make(1 << 20);
        BlockConfig config = BlockGuest.Config(image.Path, BlockEngineKind.Auto) with
        {
            RateLimiter = new RateLimiterConfig(default, new TokenBucketConfig(1, 0, 3600_000)),
        };
        using var guest = new BlockGuest(config, clock: new ManualClock());
        for (int i = 0; i < 3; i++)
            Assert.NotNull(guest.Add(0, 0, [], 4096));
        guest.Driver.Queues[0].Kick();
        guest.Driver.Queues[0].WaitUsed();
        VirtQueueState state = guest.Driver.Stop()[0];
        Assert.Equal(1, state.NextAvailable);
        Assert.Equal(1, state.NextUsed);
    }

    private static void Drive(GuestDriver driver, int index, ReadOnlySpan<ulong> memory, Span<byte> model, int rounds, int length)
    {
        DriverQueue queue = driver.Queues[index];
        var random = new Random(index);
        for (int round = 0; round < rounds; round++)
        {
            random.NextBytes(model);
            for (int i = 0; i < memory.Length; i++)
            {
                ulong at = memory[i];
                driver.Memory.Write(at, 1UL);
                driver.Memory.Write(at + 8, (ulong)(((index * model.Length) + (i * length)) / 512));
                driver.Memory.Write(at + 16, model.Slice(i * length, length));
                driver.Memory.Write(at + 16 + (ulong)length, BlockGuest.NoStatus);
                Assert.True(queue.Add([new(at, (uint)(16 + length)), new(at + 16 + (ulong)length, 1, true)]) >= 0);
            }
            queue.Kick();
            for (int i = 0; i < memory.Length; i++)
                queue.WaitUsed();
            for (int i = 0; i < memory.Length; i++)
            {
                Assert.True(driver.Memory.TryRead(memory[i] + 16 + (ulong)length, out byte status));
                Assert.Equal(0, status);
            }
        }
    }

    private static int Descriptors()
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        return Directory.GetFileSystemEntries("/proc/self/fd").Length;
    }

    private sealed class SilentHost : IVirtioHost
    {
        public void SignalQueue(int queue)
        {
        }

        public void SignalConfigurationChange()
        {
        }

        public void NeedsReset(string reason)
        {
        }
    }
}
