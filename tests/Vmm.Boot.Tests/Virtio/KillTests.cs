using System.Globalization;
using Vmm.Sandbox;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests.Virtio;

/// <summary>What is left on a disk when the VMM is killed in the middle of writing.</summary>
[Collection(VirtioCollection.Name)]
public sealed class KillTests(VirtioHost host, ITestOutputHelper log)
{
    public static TheoryData<string, string, bool> Rows()
    {
        var rows = new TheoryData<string, string, bool> { { "debian-13-disk", "pci", false } };
        if (VirtioHost.AllRows)
            rows.Add("debian-12-disk", "mmio", true);
        return rows;
    }

    [SkippableTheory]
    [MemberData(nameof(Rows))]
    public async Task What_a_guest_flushed_outlives_a_killed_vmm(string image, string bus, bool packed)
    {
        host.Require();
        Skip.If(VirtioHost.Peer && bus == "mmio", "QEMU's microvm cannot boot a distribution's kernel with its initramfs this way");
        int files = VirtioHost.Full ? 100 : 20;
        string disk = await host.EmptyFile("killed", 128);
        GuestRun run = await host.Run(
            new GuestMachine(image, bus, packed)
            {
                Disks = [new GuestDisk(await host.FreshRoot(image)), new GuestDisk(disk)],
                Script = $"files={files.ToString(CultureInfo.InvariantCulture)} sh /run/vmm/kill.sh",
            },
            TimeSpan.FromMinutes(6));
        log.WriteLine(run.Output);
        Assert.Equal(137, run.ExitCode);
        string[] flushed = [.. run.Lines("VMM-FLUSHED")];
        Assert.Equal(files, flushed.Length);

        // 0: nothing to repair; 1: repaired.
        CommandResult repair = await host.Shell($"PATH=$PATH:/sbin:/usr/sbin; e2fsck -f -y {disk}; echo code=$?; e2fsck -f -n {disk} >/dev/null 2>&1; echo again=$?");
        log.WriteLine(repair.Output);
        Assert.Matches("code=[01]\n", repair.Output);
        Assert.Contains("again=0\n", repair.Output, StringComparison.Ordinal);
        CommandResult found = await host.Shell(
            $"PATH=$PATH:/sbin:/usr/sbin; rm -rf {host.Scratch}/found; mkdir {host.Scratch}/found; cd {host.Scratch}/found && debugfs -R 'rdump /flushed .' {disk} >/dev/null 2>&1; cd flushed && sha256sum *");
        string[] there = [.. found.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => line.Replace("  ", " ", StringComparison.Ordinal))];
        Assert.Equal(flushed.Order(StringComparer.Ordinal), there.Order(StringComparer.Ordinal));
    }
}
