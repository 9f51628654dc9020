using Vmm.Core.Events;
using Vmm.Virtio.Queues;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests;

/// <summary>What every device that serves its queues itself has.</summary>
public sealed class InProcessDeviceTests
{
    [Fact]
    public void A_queue_that_failed_to_stop_runs_again_after_a_reset()
    {
        using var loop = new EventLoop("test");
        using var device = new StumblingDevice([loop]);
        using var driver = new GuestDriver(device);
        driver.Start();
        driver.Queues[0].Transact([1], writable: 1);
        device.Stumbles = true;
        Assert.Throws<InvalidOperationException>(() => driver.Stop());
        device.Stumbles = false;
        driver.Reset();
        driver.Start();
        driver.Queues[0].Transact([1], writable: 1);
    }

    private sealed class StumblingDevice(IReadOnlyList<EventLoop> loops) : InProcessDevice("stumbles", VirtioDeviceType.Socket, [16], loops)
    {
        public bool Stumbles { get; set; }

        public override ulong OfferedFeatures => VirtioFeatures.AllQueues;

        public override int ConfigurationLength => 0;

        public override void ReadConfiguration(int offset, Span<byte> data)
        {
        }

        public override VirtioDeviceState Save() => throw new NotSupportedException();

        public override void Restore(VirtioDeviceState state) => throw new NotSupportedException();

        protected override void QueueStopping(VirtQueue queue)
        {
            if (Stumbles)
                throw new InvalidOperationException("A defect.");
        }

        protected override bool ServeQueue(VirtQueue queue)
        {
            while (queue.TryTake(out DescriptorChain? chain))
                queue.GiveBack(chain, 0);
            queue.Flush();
            return false;
        }
    }
}
