using Vmm.Sandbox;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests.Virtio;

/// <summary>Devices that are, give or take memory: pmem, virtio-mem, balloon with and without free page reporting; and the watchdog.</summary>
[Collection(VirtioCollection.Name)]
public sealed class MemoryDeviceTests(VirtioHost host, ITestOutputHelper log)
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(6);

    public static TheoryData<string, string, bool> Rows()
    {
        var rows = new TheoryData<string, string, bool> { { "debian-13-disk", "pci", false } };
        if (VirtioHost.AllRows)
        {
            rows.Add("debian-12-disk", "pci", true);
            rows.Add("debian-12-disk", "mmio", false);
            rows.Add("debian-13-disk", "mmio", true);
        }
        return rows;
    }

    public static TheoryData<string, string, bool> OomRows()
    {
        var rows = new TheoryData<string, string, bool> { { "debian-12-disk", "mmio", true } };
        if (VirtioHost.AllRows)
        {
            rows.Add("debian-12-disk", "pci", false);
            rows.Add("debian-13-disk", "pci", true);
            rows.Add("debian-13-disk", "mmio", false);
        }
        return rows;
    }

    [SkippableTheory]
    [MemberData(nameof(Rows))]
    public async Task Memory_comes_and_goes_and_the_watchdog_ends_it(string image, string bus, bool packed)
    {
        host.Require();
        Skip.If(VirtioHost.Peer && (bus == "mmio" || image == "debian-12-disk"), "QEMU has these devices on PCI only");
        // Debian 12's cloud kernel has no driver for the watchdog.
        bool watchdog = image == "debian-13-disk";
        string pmem = await host.EmptyFile("pmem", 128);
        GuestRun run = await host.Run(
            new GuestMachine(image, bus, packed)
            {
                Megabytes = 512,
                Hotplug = 256,
                Disks = [new GuestDisk(await host.FreshRoot(image))],
                Pmem = pmem,
                // QEMU's balloon has no size to start with; reports stand in for it.
                Balloon = 256,
                FreePageReporting = VirtioHost.Peer,
                Watchdog = watchdog,
                Script = $"pmem={pmem} plugged={256 * 1024} fill=300 balloon={(VirtioHost.Peer ? 0 : 256)} oom=0 watchdog={(watchdog ? 1 : 0)} sh /run/vmm/memory.sh",
            },
            s_limit);
        run.AssertChecks(log);
        Assert.Equal(watchdog && !VirtioHost.Peer ? 3 : 0, run.ExitCode);
        Assert.DoesNotContain("watchdog did not fire", run.Output, StringComparison.Ordinal);
    }

    [SkippableTheory]
    [MemberData(nameof(OomRows))]
    public async Task A_balloon_gives_back_what_is_needed_and_freed_pages_go_to_the_host(string image, string bus, bool packed)
    {
        host.Require();
        Skip.If(VirtioHost.Peer, "QEMU's balloon has no size to start with");
        GuestRun run = await host.Run(
            new GuestMachine(image, bus, packed)
            {
                Megabytes = 512,
                Disks = [new GuestDisk(await host.FreshRoot(image))],
                Balloon = 256,
                DeflateOnOom = true,
                FreePageReporting = true,
                Script = "pmem= plugged=0 fill=300 balloon=256 oom=1 watchdog=0 sh /run/vmm/memory.sh",
            },
            s_limit);
        run.AssertChecks(log);
        Assert.Equal(0, run.ExitCode);
    }

    public static TheoryData<string, string> RootRows()
    {
        var rows = new TheoryData<string, string> { { "debian-13-disk", "pci" } };
        if (VirtioHost.AllRows)
        {
            rows.Add("debian-12-disk", "mmio");
            rows.Add("debian-13-disk", "mmio");
        }
        return rows;
    }

    [SkippableTheory]
    [MemberData(nameof(RootRows))]
    public async Task A_guest_lives_on_persistent_memory_without_a_page_cache(string image, string bus)
    {
        host.Require();
        Skip.If(VirtioHost.Peer, "the file is a disk, which QEMU's memory backends do not take");
        string root = await host.FreshRoot(image);
        const string script = ". /run/vmm/checks.sh; check root_is_dax grep -q '^/dev/pmem0 / ext4 .*dax' /proc/mounts; check no_disk test ! -e /dev/vda; "
            + "dd if=/dev/urandom of=/root/file bs=64k count=64 2>/dev/null; sum=$(sha256sum < /root/file); sync; echo 3 > /proc/sys/vm/drop_caches; "
            + "check root_keeps_data test \"$(sha256sum < /root/file)\" = \"$sum\"; fact sum $sum; "
            + "mount -o remount,ro /; outcome end ok";
        GuestRun run = await host.Run(
            new GuestMachine(image, bus, Packed: false) { Pmem = root, Root = "root=/dev/pmem0 rootflags=dax", Script = script }, s_limit);
        run.AssertChecks(log);
        Assert.Equal(0, run.ExitCode);

        // What the guest wrote to its memory is in the file, and the file system is in order.
        CommandResult found = await host.Shell($"e2fsck -fn {root} >/tmp/fsck 2>&1 && mkdir -p /tmp/root && mount -o ro {root} /tmp/root && sha256sum < /tmp/root/root/file; umount /tmp/root");
        Assert.True(found.ExitCode == 0, found.Output + found.Error);
        Assert.Contains("VMM-FACT sum " + found.Output[..64], run.Output, StringComparison.Ordinal);
    }
}
