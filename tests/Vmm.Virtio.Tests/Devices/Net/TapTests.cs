using System.Net.Sockets;
using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Virtio.Devices.Net;

namespace Vmm.Virtio.Tests.Devices.Net;

/// <summary>Making and taking taps.</summary>
[Collection("taps")]
public sealed class TapTests
{
    private static readonly NetConfig Plain = new() { Id = "net0" };

    [SkippableFact]
    public void A_tap_is_made_as_configured_and_is_gone_when_closed()
    {
        TapHost.Require();
        uint network = TapHost.NextNetwork();
        MacAddress mac = Frames.Mac("02:11:22:33:44:55");
        string name;
        using (Tap tap = Tap.Open(Plain with
        {
            Tap = "vmtest%d",
            Ip = TapHost.Address(network + 1),
            Mask = TapHost.Address(0xFFFF_FFF0),
            HostMac = mac,
            Mtu = 1400,
            NumQueues = 4,
        }))
        {
            name = tap.Name;
            Assert.StartsWith("vmtest", name, StringComparison.Ordinal);
            Assert.Equal(1400, tap.Mtu);
            Assert.Equal("1400", TapHost.Read(name, "mtu"));
            Assert.Equal(mac.ToString(), TapHost.Read(name, "address"));
            Assert.Equal(2, tap.Ports.Count);
            var address = Assert.Single(
                System.Net.NetworkInformation.NetworkInterface.GetAllNetworkInterfaces().Single(i => i.Name == name).GetIPProperties().UnicastAddresses,
                a => a.Address.AddressFamily == AddressFamily.InterNetwork);
            Assert.Equal(TapHost.Address(network + 1), address.Address);
            Assert.Equal(28, address.PrefixLength);
            Assert.Equal("1", TapHost.Read(name, "carrier"));
            tap.Carrier = false;
            Assert.Equal("0", TapHost.Read(name, "carrier"));
            tap.Carrier = true;
            Assert.Equal("1", TapHost.Read(name, "carrier"));
        }
        Assert.False(TapHost.Exists(name));
    }

    [SkippableTheory]
    [InlineData(1)]
    [InlineData(2)]
    public void A_persistent_tap_is_taken_by_name_and_stays(int queues)
    {
        TapHost.Require();
        string name = $"vmpers{queues}";
        TapHost.Ip($"tuntap add mode tap {name} {(queues > 1 ? "multi_queue" : "")}");
        try
        {
            TapHost.Ip($"link set {name} mtu 9000");
            using (Tap tap = Tap.Open(Plain with { Tap = name }))
            {
                Assert.Equal(9000, tap.Mtu);
                VmmException busy = Assert.Throws<VmmException>(() => Tap.Open(Plain with { Tap = name, NumQueues = queues > 1 ? 2 * NetConfig.MaximumPairs : 2 }));
                Assert.Equal(VmmErrorKind.Host, busy.Kind);
                Assert.Contains(name, busy.Message, StringComparison.Ordinal);
            }
            if (queues == 1)
                Assert.Contains("multi_queue", Assert.Throws<VmmException>(() => Tap.Open(Plain with { Tap = name, NumQueues = 4 })).Message, StringComparison.Ordinal);
            Assert.True(TapHost.Exists(name));
        }
        finally
        {
            TapHost.Ip($"tuntap del mode tap {name} {(queues > 1 ? "multi_queue" : "")}");
        }
    }

    [SkippableFact]
    public void An_interface_that_is_no_tap_is_refused()
    {
        TapHost.Require();
        Assert.Contains("no tap", Assert.Throws<VmmException>(() => Tap.Open(Plain with { Tap = "lo" })).Message, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void Open_taps_are_taken_by_descriptor()
    {
        TapHost.Require();
        int before = TapHost.OpenTaps();
        using (Tap first = Tap.Open(Plain with { NumQueues = 4 }))
        {
            int[] fds = [.. first.Ports.Select(p => p.Descriptor)];
            using (Tap second = Tap.Open(Plain with { NumQueues = 4, Fds = fds }))
            {
                Assert.Equal(first.Name, second.Name);
                Assert.DoesNotContain(second.Ports[0].Descriptor, fds);
                Assert.Equal(first.Offloads, second.Offloads);
                Assert.Equal(before + 4, TapHost.OpenTaps());
            }
            Assert.True(TapHost.Exists(first.Name));
        }
        Assert.Equal(before, TapHost.OpenTaps());
    }

    [SkippableFact]
    public void Descriptors_that_are_no_fitting_taps_are_refused_and_none_is_lost()
    {
        TapHost.Require();
        int before = TapHost.OpenTaps();
        using (Tap single = Tap.Open(Plain))
        using (Tap many = Tap.Open(Plain with { NumQueues = 4 }))
        using (Tap other = Tap.Open(Plain with { NumQueues = 4 }))
        using (var tun = OpenTun(LibC.IFF_TUN | LibC.IFF_NO_PI))
        using (var bare = OpenTun(LibC.IFF_TAP | LibC.IFF_NO_PI))
        using (FileStream file = File.OpenRead("/dev/null"))
        {
            AssertRefused("not an open descriptor", 9999);
            AssertRefused("not an open tap", (int)file.SafeFileHandle.DangerousGetHandle());
            AssertRefused("tun interface", tun.Number);
            AssertRefused("IFF_VNET_HDR", bare.Number);
            AssertRefused("IFF_MULTI_QUEUE", single.Ports[0].Descriptor, single.Ports[0].Descriptor);
            AssertRefused(other.Name, many.Ports[0].Descriptor, other.Ports[0].Descriptor);
        }
        Assert.Equal(before, TapHost.OpenTaps());
    }

    private static void AssertRefused(string expected, params int[] fds)
    {
        VmmException error = Assert.Throws<VmmException>(() => Tap.Open(Plain with { Fds = fds, NumQueues = 2 * fds.Length }));
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        Assert.Contains($"fd={fds[^1]}", error.Message, StringComparison.Ordinal);
        Assert.Equal(VmmErrorKind.Configuration, error.Kind);
    }

    private static unsafe FileDescriptor OpenTun(int flags)
    {
        var fd = new FileDescriptor(LibC.open("/dev/net/tun", LibC.O_RDWR | LibC.O_CLOEXEC, 0));
        ifreq request = default;
        request.ifr_flags = (short)flags;
        Assert.Equal(0, LibC.ioctl(fd.Number, LibC.TUNSETIFF, &request));
        return fd;
    }
}
