using Vmm.Core.Events;
using Vmm.Virtio.Devices.Rng;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices.Rng;

/// <summary>A driver that sends anything.</summary>
public sealed class RngHostileTests
{
    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void Anything_costs_this_device_at_most_a_reset(int rings)
    {
        using var loop = new EventLoop("hostile-test");
        using var device = new RngDevice(new RngConfig(), [loop]);
        using var other = new RngDevice(new RngConfig("other"), [loop]);
        using var driver = new GuestDriver(device, RingFeatures.Of(rings), features: 0);
        using var otherDriver = new GuestDriver(other);
        otherDriver.Start();
        var hostile = new HostileDriver(driver, 100 + rings);
        hostile.Run(3000, null);
        Assert.True(hostile.Chains > 3000);
        Assert.True(hostile.Resets > 20);
        Assert.Equal(64, otherDriver.Queues[0].Transact([], 64).Length);
    }
}
