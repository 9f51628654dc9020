using Vmm.Boot.Tests.Virtio;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests.VhostUser;

/// <summary>
/// A network card of passt, which runs as an ordinary user: DHCP, TCP both ways over IPv4 and IPv6, a driver that leaves and comes back, a passt
/// that is killed under load.
/// </summary>
[Collection(BackEndCollection.Name)]
public sealed class PasstTests(VirtioHost host, ITestOutputHelper log)
{
    private const string Host4 = "10.91.9.1";
    private const string Host6 = "fd00:91:9::1";

    public static TheoryData<string, string> Rows()
    {
        var rows = new TheoryData<string, string> { { "debian-13-disk", "pci" } };
        if (VirtioHost.AllRows)
        {
            rows.Add("debian-12-disk", "pci");
            rows.Add("debian-12-disk", "mmio");
            rows.Add("debian-13-disk", "mmio");
        }
        return rows;
    }

    [SkippableTheory]
    [MemberData(nameof(Rows))]
    public async Task A_guest_reaches_its_host_through_passt(string image, string bus)
    {
        host.Require();
        Skip.If(VirtioHost.Peer, "these are options of vmm");
        await host.RequireProgram("passt");
        // An interface for it to tell the guest of. Only in the sandbox: elsewhere that is the administrator's.
        Skip.IfNot(host.InSandbox, "this test makes a network interface with a default route, so it runs in the sandbox only");
        await BackEndGuests.Must(
            host,
            "ip link show vmmout >/dev/null 2>&1 && exit; modprobe veth; ip link add vmmout type veth peer name vmmin && ip link set lo up && ip link set vmmout up && ip link set vmmin up"
            + " && ip addr add 10.91.0.15/24 dev vmmout && ip route add default via 10.91.0.2 && ip -6 addr add fd00:91::15/64 dev vmmout nodad && ip -6 route add default via fd00:91::2 dev vmmout");
        const string folder = "/run/vmm-passt";
        await BackEndGuests.Must(host, $"mkdir -p {folder} && chown nobody {folder}");
        await using IAsyncDisposable service = await BackEndGuests.Start(
            host, "passt",
            $"setpriv --reuid=nobody --regid=nogroup --clear-groups passt -f --vhost-user --socket {folder}/socket --map-host-loopback {Host4} --map-host-loopback {Host6}");
        await BackEndGuests.Check(
            host,
            new GuestMachine(image, bus, false)
            {
                Disks = [new GuestDisk(await host.FreshRoot(image))],
                Options = [.. BackEndGuests.Options(host), "--net", $"vhost_user=on,socket={folder}/socket"],
                Script = $"bus={bus} metrics={BackEndGuests.Metrics(host)} bytes={(VirtioHost.Full ? 64 << 20 : 2 << 20)} rounds={VirtioHost.Rounds} host4={Host4} host6={Host6} back_end='cat {host.Scratch}/passt.pid' sh /run/vmm/passt.sh",
            },
            log);
    }
}
