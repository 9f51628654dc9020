using System.Net;
using Vmm.Core;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.RateLimiting;

namespace Vmm.Virtio.Tests.Devices.Net;

public sealed class NetConfigTests
{
    private static readonly NetConfig Good = new() { Id = "net0" };

    public static TheoryData<string, NetConfig> Wrong => new()
    {
        { "num_queues=3", Good with { NumQueues = 3 } },
        { "num_queues=0", Good with { NumQueues = 0 } },
        { "num_queues=514", Good with { NumQueues = 514 } },
        { "queue_size=100", Good with { QueueSize = 100 } },
        { "queue_size=1", Good with { QueueSize = 1 } },
        { "tap=", Good with { Tap = "" } },
        { "tap=a/b", Good with { Tap = "a/b" } },
        { "1 to 15 bytes", Good with { Tap = "sixteen-letters-" } },
        { "ip=::1", Good with { Ip = IPAddress.IPv6Loopback } },
        { "mask=", Good with { Mask = IPAddress.Parse("255.0.0.0") } },
        { "mac=01:", Good with { Mac = new MacAddress(0x0100_0000_0001) } },
        { "mac=00:", Good with { Mac = default(MacAddress) } },
        { "host_mac=ff", Good with { HostMac = MacAddress.Broadcast } },
        { "mtu=67", Good with { Mtu = 67 } },
        { "fd= does not go together", Good with { Fds = [3], Tap = "tap0" } },
        { "num_queues=4", Good with { Fds = [3, 4] } },
        { "fd=1 ", Good with { Fds = [1] } },
        { "bw_refill_time", Good with { RateLimit = new RateLimiterConfig(new TokenBucketConfig(1, 0, 0), default) } },
    };

    [Theory]
    [MemberData(nameof(Wrong))]
    public void What_cannot_be_is_refused_with_its_option(string expected, NetConfig config)
    {
        VmmException error = Assert.Throws<VmmException>(config.Validate);
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        Assert.Equal(VmmErrorKind.Configuration, error.Kind);
    }

    [Fact]
    public void What_is_possible_is_accepted()
    {
        Good.Validate();
        (Good with { NumQueues = 512, QueueSize = 32768, Mtu = 68, Tap = "fifteen-letters", Ip = IPAddress.Loopback, Mask = IPAddress.Any }).Validate();
        (Good with { NumQueues = 4, Fds = [3, 4], Mtu = 9000, Mac = new MacAddress(0x5254_0012_3456) }).Validate();
    }
}
