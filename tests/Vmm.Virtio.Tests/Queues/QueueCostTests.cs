using Vmm.Core.Events;
using Vmm.Core.Memory;
using Vmm.Virtio.Queues;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Queues;

/// <summary>What a busy queue costs, and that two threads do not miss each other's signals.</summary>
public sealed class QueueCostTests
{
    [Theory]
    [MemberData(nameof(RingFeatures.AllData), MemberType = typeof(RingFeatures))]
    public void Nothing_is_allocated_for_a_request(int number)
    {
        RingFeatures features = RingFeatures.Of(number);
        using var ram = GuestRam.Allocate([(0, 1 << 20)], default);
        var host = new SilentHost();
        DriverQueue driver = features.Packed
            ? new PackedDriverQueue(new GuestArena(ram.Memory, 0x1000, 0x80000), new RecordingHost(), 0, 64, features)
            : new SplitDriverQueue(new GuestArena(ram.Memory, 0x1000, 0x80000), new RecordingHost(), 0, 64, features);
        Assert.True(VirtQueue.TryCreate(
            driver.Setup(VirtQueueState.Initial), new VirtioActivation(features.Bits, ram.Memory, host), new QueueCounters(0), out VirtQueue? queue, out _));
        long allocated = 0;
        for (int round = 0; round < 200; round++)
        {
            for (int i = 0; i < 16; i++)
                Assert.True(driver.Add([new(0x80000, 16), new(0x90000, 512, true), new(0xA0000, 1, true)], features.Indirect) >= 0);
            long before = ThreadAllocations.Start();
            queue!.SuppressNotifications();
            int served = 0;
            while (queue.TryTake(out DescriptorChain? chain))
            {
                if (++served % 5 == 0)
                {
                    queue.Untake(chain);
                    Assert.True(queue.TryTake(out chain));
                }
                queue.GiveBack(chain, 512);
            }
            queue.Flush();
            Assert.False(queue.RequestNotifications());
            // The first rounds fill the pool and compile the code.
            if (round >= 50)
                allocated += ThreadAllocations.Since(before);
            while (driver.TryGetUsed(out _))
                served--;
            Assert.Equal(0, served);
        }
        Assert.Equal(0, allocated);
        driver.Doorbell.Dispose();
    }

    [Theory]
    [MemberData(nameof(RingFeatures.AllData), MemberType = typeof(RingFeatures))]
    public void Two_threads_never_miss_each_other(int number)
    {
        RingFeatures features = RingFeatures.Of(number);
        using var loop = new EventLoop("echo");
        using var device = new EchoDevice([loop], queues: 1);
        using var driver = new GuestDriver(device, features, queueSize: 8);
        driver.Start();
        DriverQueue queue = driver.Queues[0];
        byte[] request = new byte[8];
        var sent = new Dictionary<int, int>();
        int next = 0, answered = 0;
        // One that is missed waits for ever: WaitUsed ends the test then.
        while (answered < 3000)
        {
            while (next < 3000 && (next % 7 != 0 || queue.InFlight == 0))
            {
                BitConverter.TryWriteBytes(request, next);
                int token = queue.Add(request, 8, features.Indirect);
                if (token < 0)
                    break;
                sent[token] = next++;
                queue.Kick();
            }
            UsedBuffer used = queue.WaitUsed();
            Assert.Equal(sent[used.Token], BitConverter.ToInt32(queue.Read(used)));
            answered++;
            if (answered % 1000 == 0)
                driver.Restart();
        }
        Assert.Empty(driver.Host.ResetReasons);
        Assert.Equal(3000, Requests(device));
    }

    private static long Requests(EchoDevice device)
    {
        var sink = new Sink();
        device.ReportCounters(sink);
        return sink.Values["queue0_requests"];
    }

    private sealed class Sink : ICounterSink
    {
        public Dictionary<string, long> Values { get; } = [];

        public void Add(string name, long value) => Values.Add(name, value);
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
