using Vmm.Boot.Tests.Virtio;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests.VhostUser;

/// <summary>
/// Disks of qemu-storage-daemon, the root among them: data verified over one and four queues, a disk that grows, drivers that leave and come
/// back, a daemon that is killed under load, a reboot.
/// </summary>
[Collection(BackEndCollection.Name)]
public sealed class StorageDaemonTests(VirtioHost host, ITestOutputHelper log)
{
    public static TheoryData<string, string> Rows()
    {
        var rows = new TheoryData<string, string> { { "debian-12-disk", "mmio" } };
        if (VirtioHost.Full)
        {
            rows.Add("debian-13-disk", "pci");
            rows.Add("debian-12-disk", "pci");
            rows.Add("debian-13-disk", "mmio");
        }
        return rows;
    }

    [SkippableTheory]
    [MemberData(nameof(Rows))]
    public async Task A_guest_lives_on_disks_of_the_daemon(string image, string bus)
    {
        host.Require();
        Skip.If(VirtioHost.Peer, "these are options of vmm");
        await host.RequireProgram("qemu-storage-daemon");
        string root = await host.FreshRoot(image);
        string one = await host.EmptyFile("one", 64);
        string four = await host.EmptyFile("four", 64);
        string qmp = $"{host.Scratch}/qmp.sock";
        await BackEndGuests.Check(
            host,
            new GuestMachine(image, bus, false)
            {
                Cpus = 4,
                Options =
                [
                    .. BackEndGuests.Options(host),
                    "--disk", Disk(root, root.StartsWith("/dev/", StringComparison.Ordinal) ? "host_device" : "file", 1),
                    "--disk", Disk(one, "file", 1),
                    "--disk", Disk(four, "file", 4, $" --chardev socket,path={qmp},server=on,wait=off,id=q --monitor chardev=q"),
                ],
                Script = $"bus={bus} metrics={BackEndGuests.Metrics(host)} qmp={qmp} size={BackEndGuests.FioSize} rounds={VirtioHost.Rounds} kills={(VirtioHost.Full ? 20 : 1)} "
                    + $"back_end='pgrep -P $pid -f filename={four}' sh /run/vmm/disks.sh",
            },
            log);
    }

    private static string Disk(string path, string driver, int queues, string more = "") =>
        $"vhost_user=on,num_queues={queues},exec=\"qemu-storage-daemon --blockdev driver={driver},node-name=file,filename={path},discard=unmap --blockdev driver=raw,node-name=disk,file=file,discard=unmap "
        + $"--export type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={{socket}},writable=on,num-queues={queues}{more}\"";
}
