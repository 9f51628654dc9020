using Vmm.Boot.Tests.Virtio;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests.VhostUser;

/// <summary>
/// A machine that stands still and goes on while all its real back-ends are busy: a disk of qemu-storage-daemon, a file system of virtiofsd, a
/// card of passt and sockets of vhost-device-vsock; two of which are also killed while it stands still. By the library: tests/Vmm.LiveMachine embeds the machine.
/// </summary>
[Collection(BackEndCollection.Name)]
public sealed class PauseTests(VirtioHost host, ITestOutputHelper log)
{
    public static TheoryData<string, string> Rows()
    {
        var rows = new TheoryData<string, string> { { "debian-13-disk", "pci" } };
        if (VirtioHost.AllRows)
        {
            rows.Add("debian-12-disk", "mmio");
            rows.Add("debian-12-disk", "pci");
            rows.Add("debian-13-disk", "mmio");
        }
        return rows;
    }

    [SkippableTheory]
    [MemberData(nameof(Rows))]
    public async Task A_machine_stands_still_and_goes_on_under_load_of_its_back_ends(string image, string bus)
    {
        host.Require();
        Skip.If(VirtioHost.Peer, "these are options of vmm");
        string? program = Environment.GetEnvironmentVariable("VMM_TEST_LIVE_MACHINE");
        Assert.False(program == null && Environment.GetEnvironmentVariable("VMM_REQUIRE_BOOT") == "1", "VMM_TEST_LIVE_MACHINE does not name the program; scripts/test does.");
        Skip.If(program == null, "VMM_TEST_LIVE_MACHINE does not name the program that embeds the machine; scripts/test builds it");
        foreach (string backEnd in new[] { "virtiofsd", "qemu-storage-daemon", "vhost-device-vsock" })
            await host.RequireProgram(backEnd);
        string folder = $"{host.Scratch}/pause", commands = $"{folder}/commands", share = $"{folder}/share", disk = await host.EmptyFile("pause-disk", 64);
        string vsock = $"{host.Scratch}/vsock.sock", uds = $"{host.Scratch}/vm.vsock";
        await BackEndGuests.Must(host, $"rm -rf {folder}; mkdir -p {share} && mkfifo {commands}");
        await host.CopyIn(Path.GetDirectoryName(program)!, $"{folder}/program");
        await using IAsyncDisposable passt = await BackEndGuests.StartPasst(host);
        await using IAsyncDisposable sockets = await BackEndGuests.Start(host, "vsock", $"vhost-device-vsock --guest-cid 3 --socket {vsock} --uds-path {uds}");
        await BackEndGuests.Check(
            host,
            new GuestMachine(image, bus, false)
            {
                Cpus = 2,
                Disks = [new GuestDisk(await host.FreshRoot(image))],
                Options =
                [
                    .. BackEndGuests.Options(host),
                    "--disk", $"vhost_user=on,num_queues=2,exec=\"qemu-storage-daemon --blockdev driver=file,node-name=file,filename={disk} --blockdev driver=raw,node-name=disk,file=file "
                        + "--export type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={socket},writable=on,num-queues=2\"",
                    "--fs", $"tag=share,exec=\"/usr/libexec/virtiofsd --fd={{fd}} --shared-dir {share} --sandbox none\"",
                    "--net", $"vhost_user=on,socket={BackEndGuests.PasstSocket}",
                    "--vsock", $"vhost_user=on,socket={vsock}",
                ],
                Script = $"bus={bus} metrics={BackEndGuests.Metrics(host)} commands={commands} disk={disk} share={share} uds={uds} host4={BackEndGuests.Host4} "
                    + $"pauses={(VirtioHost.Full ? 100 : 5)} kill_disk='pgrep -P $pid -f filename={disk}' kill_net='cat {host.Scratch}/passt.pid' sh /run/vmm/pause.sh",
            },
            log,
            ["env", $"VMM_LIVE_COMMANDS={commands}", $"{folder}/program/live-machine"]);
    }
}
