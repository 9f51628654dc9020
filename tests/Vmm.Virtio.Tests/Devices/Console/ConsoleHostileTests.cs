using Vmm.Core.Events;
using Vmm.Virtio.Devices.Console;
using Vmm.Virtio.Devices.Rng;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices.Console;

/// <summary>A driver that sends anything.</summary>
public sealed class ConsoleHostileTests
{
    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void Anything_costs_this_device_at_most_a_reset(int rings)
    {
        using var loop = new EventLoop("hostile-test");
        var sink = new FakeSink(5000);
        using var device = new ConsoleDevice(new ConsoleConfig(), sink, [loop]);
        using var other = new RngDevice(new RngConfig("other"), [loop]);
        using var driver = new GuestDriver(device, RingFeatures.Of(rings), features: 5);
        using var otherDriver = new GuestDriver(other);
        otherDriver.Start();
        var hostile = new HostileDriver(driver, 100 + rings);
        hostile.Run(3000, random =>
        {
            device.Receive(new byte[random.Next(0, 3000)]);
            device.SetSize((ushort)random.Next(200), 25);
            if (sink.Count > 0 && random.Next(3) == 0)
                sink.Take(random.Next(1, 6000));
        });
        Assert.True(hostile.Chains > 3000);
        Assert.True(hostile.Resets > 20);
        Assert.Equal(64, otherDriver.Queues[0].Transact([], 64).Length);
    }
}
