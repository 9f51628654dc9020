using Xunit.Abstractions;

namespace Vmm.Boot.Tests.Virtio;

/// <summary>
/// Stock guests on a root of their own, over both buses with both ring layouts: block, net, console and rng, with drivers that come and go.
/// </summary>
[Collection(VirtioCollection.Name)]
public sealed class DeviceMatrixTests(VirtioHost host, ITestOutputHelper log)
{
    // What fio writes and verifies on each of the queues, in its own way of writing a size. Emulation makes a megabyte take its time.
    private static string SizeFor(int queues) =>
        Environment.GetEnvironmentVariable("VMM_TEST_FIO_SIZE") ?? (VirtioHost.Full ? "64m" : queues > 1 ? "1m" : "4m");

    public static TheoryData<string, string, bool, int> Rows()
    {
        var rows = new TheoryData<string, string, bool, int>
        {
            { "debian-12-disk", "pci", false, 1 },
            { "debian-13-disk", "pci", true, 2 },
            { "debian-12-disk", "mmio", true, 4 },
            { "debian-13-disk", "mmio", false, 1 },
        };
        if (VirtioHost.Full)
        {
            rows.Add("debian-13-disk", "pci", true, 4);
            rows.Add("debian-13-disk", "pci", false, 4);
            rows.Add("debian-12-disk", "pci", true, 1);
            rows.Add("debian-13-disk", "mmio", true, 1);
            rows.Add("debian-12-disk", "mmio", false, 4);
        }
        return rows;
    }

    [SkippableTheory]
    [MemberData(nameof(Rows))]
    public async Task A_guest_on_its_disk_finds_every_byte_where_it_belongs(string image, string bus, bool packed, int queues)
    {
        host.Require();
        Skip.If(VirtioHost.Peer && bus == "mmio", "QEMU's microvm cannot boot a distribution's kernel with its initramfs this way");
        int bytes = VirtioHost.Full ? 64 << 20 : 2 << 20;
        GuestRun run = await host.Run(
            new GuestMachine(image, bus, packed)
            {
                Cpus = queues,
                IoThreads = queues > 1 ? 2 : 1,
                Disks = [new GuestDisk(await host.FreshRoot(image)), new GuestDisk(await host.EmptyFile("scratch", 512), queues, "scratch")],
                Tap = "vmmtest0",
                Rng = true,
                Script = $"queues={queues} packed={(packed ? 1 : 0)} size={SizeFor(queues)} rounds={VirtioHost.Rounds} bytes={bytes} sh /run/vmm/matrix.sh",
            },
            VirtioHost.Full ? TimeSpan.FromMinutes(60) : TimeSpan.FromMinutes(6));
        run.AssertChecks(log);
        Assert.Equal(0, run.ExitCode);
    }

    public static TheoryData<string, string, bool> RebindRows()
    {
        var rows = new TheoryData<string, string, bool> { { "debian-13-disk", "mmio", true } };
        if (VirtioHost.Full)
        {
            rows.Add("debian-13-disk", "pci", false);
            rows.Add("debian-12-disk", "pci", true);
            rows.Add("debian-12-disk", "mmio", false);
        }
        return rows;
    }

    [SkippableTheory]
    [MemberData(nameof(RebindRows))]
    public async Task Drivers_of_all_devices_leave_and_come_back(string image, string bus, bool packed)
    {
        host.Require();
        Skip.If(VirtioHost.Peer, "QEMU has some of these devices on PCI only");
        GuestRun run = await host.Run(
            new GuestMachine(image, bus, packed)
            {
                Megabytes = 256,
                Hotplug = 256,
                // Linux does not let its driver go while it has memory of it.
                Plugged = 0,
                Console = "ttyS0",
                Disks = [new GuestDisk(await host.FreshRoot(image)), new GuestDisk(await host.EmptyFile("rebound", 64))],
                Tap = "vmmtest2",
                Rng = true,
                Balloon = 32,
                FreePageReporting = true,
                Pmem = await host.EmptyFile("rebound-pmem", 128),
                Script = $"rounds={VirtioHost.Rounds} sh /run/vmm/rebind.sh",
            },
            TimeSpan.FromMinutes(VirtioHost.Rounds > 10 ? 60 : 6));
        run.AssertChecks(log);
        Assert.Equal(0, run.ExitCode);
    }

    [SkippableFact]
    public async Task A_guest_without_MSI_shares_its_lines()
    {
        host.Require();
        GuestRun run = await host.Run(
            new GuestMachine("debian-13-disk", "pci", Packed: false)
            {
                // More devices than there are lines: some share one.
                Disks = [new GuestDisk(await host.FreshRoot("debian-13-disk")), new GuestDisk(await host.EmptyFile("scratch", 64), 1, "scratch")],
                Tap = "vmmtest1",
                Rng = true,
                Balloon = 0,
                Words = "pci=nomsi",
                Script = "sh /run/vmm/intx.sh",
            },
            TimeSpan.FromMinutes(6));
        run.AssertChecks(log);
        Assert.Equal(0, run.ExitCode);
    }
}
