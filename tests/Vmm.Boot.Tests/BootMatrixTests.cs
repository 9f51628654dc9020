using Vmm.Sandbox;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests;

/// <summary>Stock kernels, by every boot protocol, with few and many processors and little and much memory.</summary>
[Collection(BootCollection.Name)]
public sealed class BootMatrixTests(BootHost host, ITestOutputHelper log)
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(4);

    [SkippableTheory]
    [InlineData("debian-12", "vmlinuz", "bzimage", 1, 512)]
    [InlineData("debian-12", "vmlinuz", "unpacked", 2, 128)]
    [InlineData("debian-12", "vmlinux", "pvh", 8, 512)]
    [InlineData("debian-12", "vmlinux", "linux64", 1, 5120)]
    [InlineData("debian-13", "vmlinuz", "bzimage", 2, 5120)]
    [InlineData("debian-13", "vmlinuz", "unpacked", 8, 512)]
    [InlineData("debian-13", "vmlinux", "pvh", 1, 128)]
    [InlineData("debian-13", "vmlinux", "linux64", 2, 512)]
    public async Task A_guest_finds_its_machine_and_powers_off(string image, string kernel, string protocol, int cpus, int megabytes)
    {
        host.Require();
        const string CommandLine = "console=ttyS0 panic=-1 quiet vmm.test=a,b";
        CommandResult result = await host.RunVmm(
            [
                "run", "--kernel", host.Image(image, kernel), "--initramfs", host.Image(image, "initramfs.cpio.gz"),
                "--cmdline", CommandLine + " vmm.end=poweroff", "--cpus", $"boot={cpus}", "--memory", $"size={megabytes}M",
                "--boot", $"protocol={protocol}",
            ],
            s_limit);
        log.WriteLine(result.Output + result.Error);

        Assert.False(result.TimedOut, "the guest did not end");
        Assert.Equal(0, result.ExitCode);
        GuestReport? report = GuestReport.Find(result.Output);
        Assert.NotNull(report);
        Assert.Equal(cpus, report.Cpus);
        Assert.Equal(CommandLine + " vmm.end=poweroff", report.CommandLine);
        Assert.StartsWith(image == "debian-12" ? "6.1." : "6.12.", report.Kernel, StringComparison.Ordinal);
        // All of it but the firmware's area below 1 MiB, a part of which is not RAM.
        Assert.InRange(report.MemoryKib, (megabytes * 1024L) - 512, megabytes * 1024L);
    }

    [SkippableTheory]
    [InlineData("debian-12")]
    [InlineData("debian-13")]
    public async Task A_guest_without_ACPI_boots_and_ends_by_the_keyboard_controller(string image)
    {
        host.Require();
        CommandResult result = await host.RunVmm(
            [
                "run", "--kernel", host.Image(image, "vmlinuz"), "--initramfs", host.Image(image, "initramfs.cpio.gz"), "--acpi", "off",
                "--cmdline", "console=ttyS0 panic=-1 quiet acpi=off vmm.end=reboot",
            ],
            s_limit);
        log.WriteLine(result.Output + result.Error);
        Assert.Equal(3, result.ExitCode);
        Assert.Equal(1, GuestReport.Find(result.Output)?.Cpus);
    }
}
