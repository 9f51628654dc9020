using Vmm.Boot.Tests.Virtio;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests.VhostUser;

/// <summary>
/// A network card of passt, which runs as an ordinary user: DHCP, TCP both ways over IPv4 and IPv6, a driver that leaves and comes back, a passt
/// that is killed under load, a reboot.
/// </summary>
[Collection(BackEndCollection.Name)]
public sealed class PasstTests(VirtioHost host, ITestOutputHelper log)
{
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
        await using IAsyncDisposable service = await BackEndGuests.StartPasst(host);
        await BackEndGuests.Check(
            host,
            new GuestMachine(image, bus, false)
            {
                Disks = [new GuestDisk(await host.FreshRoot(image))],
                Options = [.. BackEndGuests.Options(host), "--net", $"vhost_user=on,socket={BackEndGuests.PasstSocket}"],
                Script = $"bus={bus} metrics={BackEndGuests.Metrics(host)} bytes={(VirtioHost.Full ? 64 << 20 : 2 << 20)} rounds={VirtioHost.Rounds} host4={BackEndGuests.Host4} host6={BackEndGuests.Host6} back_end='cat {host.Scratch}/passt.pid' sh /run/vmm/passt.sh",
            },
            log);
    }
}
