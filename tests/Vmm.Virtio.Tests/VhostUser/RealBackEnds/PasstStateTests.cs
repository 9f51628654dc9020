using System.Diagnostics;
using Vmm.Core;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.VhostUser;

namespace Vmm.Virtio.Tests.VhostUser.RealBackEnds;

/// <summary>
/// The state of passt, out of one process into a file and from there into the next, by DEVICE_STATE. With passt-repair beside both, a TCP
/// connection of the guest goes on in the second as if nothing had been.
/// </summary>
public sealed class PasstStateTests : IDisposable
{
    private const ushort Port = 7777;
    private const uint Guest = 0xC000_0205, Host = 0xC000_0202;

    private static readonly byte[] s_mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("vmm-passt");
    private readonly List<Process> _others = [];

    public void Dispose()
    {
        foreach (Process process in _others)
        {
            process.Kill(entireProcessTree: true);
            process.WaitForExit();
            process.Dispose();
        }
        _directory.Delete(recursive: true);
    }

    [SkippableTheory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_guest_goes_on_where_another_process_took_over(bool repair)
    {
        DebianRoot.Require();
        StartNetwork();
        var guest = new TcpGuest(s_mac, Guest, Host);
        using (RealBackEnd first = Start(repair))
        {
            Begin(guest, first);
            guest.Resolve();
            guest.Connect(Port);
            Assert.Equal("before"u8.ToArray(), guest.Echo(Port, "before"u8.ToArray()));
            File.WriteAllBytes(PathOf("state"), first.Save());
            // It ends by itself then, in the release that Debian 13 has.
            Assert.Equal(0, first.WaitForExit());
        }

        using RealBackEnd second = Start(repair);
        second.FrontEnd.LoadState(File.ReadAllBytes(PathOf("state")));
        Begin(guest, second);
        if (repair)
            Assert.Equal("after, on the same connection"u8.ToArray(), guest.Echo(Port, "after, on the same connection"u8.ToArray()));
        else
            guest.Resolve();
    }

    [SkippableTheory]
    [InlineData("nothing")]
    [InlineData("noise")]
    public void A_state_that_is_none_is_refused_and_says_so(string what)
    {
        DebianRoot.Require();
        StartNetwork();
        using RealBackEnd only = Start(repair: false);
        VmmException error = Assert.Throws<VmmException>(() => only.FrontEnd.LoadState(what == "nothing" ? [] : new byte[4096]));
        Assert.StartsWith("Cannot restore the state of real0: its back-end does not take it: ", error.Message, StringComparison.Ordinal);
    }

    private string PathOf(string name) => Path.Combine(_directory.FullName, name);

    private static void Begin(TcpGuest guest, RealBackEnd backEnd)
    {
        backEnd.Driver.Start();
        guest.Card = backEnd.Driver;
        guest.Listen();
    }

    /// <summary>A network of its own, in which somebody repeats what is said to it.</summary>
    private void StartNetwork()
    {
        // passt runs as nobody, and makes its sockets there.
        const string script = "chmod 777 /mnt && ip link set lo up && ip link add eth0 type veth peer name eth1 && ip link set eth1 up && ip addr add 192.0.2.5/24 dev eth0 && ip link set eth0 up && ip route add default via 192.0.2.1"
            + " && echo ready && exec socat TCP-LISTEN:7777,bind=127.0.0.1,fork,reuseaddr EXEC:cat";
        Process network = DebianRoot.Start(_directory.FullName, script, "unshare --net");
        _others.Add(network);
        Assert.Equal("ready", network.StandardOutput.ReadLine());
    }

    private RealBackEnd Start(bool repair)
    {
        string network = $"nsenter --net=/proc/{_others[0].Id}/ns/net";
        byte[] configuration = [.. s_mac, 1, 0, 1, 0, 0, 0];
        var backEnd = new RealBackEnd(
            _directory.FullName,
            "exec setpriv --reuid=nobody --regid=nogroup --clear-groups passt -f --debug --vhost-user --socket /mnt/s --map-host-loopback 192.0.2.2",
            VirtioDeviceType.Network, 2, settings => settings with
            {
                Configuration = configuration,
                OwnFeatures = NetFeatures.Mac | NetFeatures.Status,
                RefusedFeatures = NetFeatures.CtrlVq | NetFeatures.MultiQueue | NetFeatures.GuestAnnounce,
            }, network);
        if (repair)
        {
            _others.Add(DebianRoot.Start(_directory.FullName, "exec passt-repair /mnt/s.repair", network));
            backEnd.WaitForLog("Accepted TCP_REPAIR helper");
        }
        return backEnd;
    }
}
