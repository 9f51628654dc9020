using Vmm.Boot.Tests.Virtio;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests.VhostUser;

/// <summary>
/// A socket device of vhost-device-vsock: streams both ways, begun by either side, a driver that leaves and comes back, a back-end that is
/// killed under load, a reboot.
/// </summary>
[Collection(BackEndCollection.Name)]
public sealed class VsockTests(VirtioHost host, ITestOutputHelper log)
{
    public static TheoryData<string, string> Rows()
    {
        var rows = new TheoryData<string, string> { { "debian-12-disk", "pci" } };
        if (VirtioHost.AllRows)
        {
            rows.Add("debian-13-disk", "mmio");
            rows.Add("debian-13-disk", "pci");
            rows.Add("debian-12-disk", "mmio");
        }
        return rows;
    }

    [SkippableTheory]
    [MemberData(nameof(Rows))]
    public async Task A_guest_and_its_host_reach_each_other_by_sockets(string image, string bus)
    {
        host.Require();
        Skip.If(VirtioHost.Peer, "these are options of vmm");
        await host.RequireProgram("vhost-device-vsock");
        string socket = $"{host.Scratch}/vsock.sock";
        string uds = $"{host.Scratch}/vm.vsock";
        await using IAsyncDisposable service = await BackEndGuests.Start(host, "vsock", $"vhost-device-vsock --guest-cid 3 --socket {socket} --uds-path {uds}");
        await BackEndGuests.Check(
            host,
            new GuestMachine(image, bus, false)
            {
                Disks = [new GuestDisk(await host.FreshRoot(image))],
                Options = [.. BackEndGuests.Options(host), "--vsock", $"vhost_user=on,socket={socket}"],
                Script = $"bus={bus} metrics={BackEndGuests.Metrics(host)} bytes={(VirtioHost.Full ? 64 << 20 : 2 << 20)} rounds={VirtioHost.Rounds} uds={uds} back_end='cat {host.Scratch}/vsock.pid' sh /run/vmm/vsock.sh",
            },
            log);
    }
}
