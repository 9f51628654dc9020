using Vmm.Sandbox;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests;

/// <summary>Each way in which a real guest ends, and the exit code that says so.</summary>
[Collection(BootCollection.Name)]
public sealed class EndingTests(BootHost host, ITestOutputHelper log)
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(4);

    [SkippableTheory]
    [InlineData("poweroff", "console=ttyS0", 0)]
    [InlineData("reboot", "console=ttyS0", 3)]
    [InlineData("panic", "console=ttyS0 panic=-1", 4)]
    [InlineData("triplefault", "console=ttyS0", 5)]
    public async Task The_exit_code_says_how_the_guest_ended(string end, string commandLine, int expected)
    {
        host.Require();
        CommandResult result = await Run("debian-12", $"{commandLine} quiet vmm.end={end}");
        Assert.Equal(expected, result.ExitCode);
        Assert.NotNull(GuestReport.Find(result.Output));
    }

    [SkippableFact]
    public async Task A_panic_is_told_with_its_cause_on_the_console()
    {
        host.Require();
        CommandResult result = await Run("debian-13", "console=ttyS0 panic=-1 vmm.end=panic");
        Assert.Equal(4, result.ExitCode);
        Assert.Contains("Kernel panic - not syncing: sysrq triggered crash", result.Output, StringComparison.Ordinal);
        Assert.Contains("vmm: The guest's kernel panicked", result.Error, StringComparison.Ordinal);
    }

    [SkippableFact]
    public async Task A_triple_fault_comes_with_a_report()
    {
        host.Require();
        CommandResult result = await Run("debian-13", "console=ttyS0 quiet vmm.end=triplefault");
        Assert.Equal(5, result.ExitCode);
        Assert.Contains("triple fault", result.Error, StringComparison.Ordinal);
        Assert.Contains("rip ", result.Error, StringComparison.Ordinal);
        Assert.Contains("VMM-GUEST cpus=1", result.Error, StringComparison.Ordinal);
    }

    [SkippableTheory]
    [InlineData("TERM", 143)]
    [InlineData("HUP", 129)]
    public async Task A_hung_guest_is_ended_by_a_signal(string signal, int expected)
    {
        host.Require();
        string console = $"{host.Scratch}/hung-{signal}";
        string vmm = host.Command(Arguments("debian-12", "console=ttyS0 quiet vmm.end=hang").Append("--serial").Append($"file={console}"));
        CommandResult result = await host.Shell(
            $"{vmm} & pid=$!; until grep -q 'VMM-GUEST hanging' {console} 2>/dev/null; do sleep 0.2; done; kill -{signal} $pid; wait $pid; echo code=$?",
            s_limit);
        log.WriteLine(result.Output + result.Error);
        Assert.Contains($"code={expected}", result.Output, StringComparison.Ordinal);
        Assert.Contains("vmm: Ended by signal", result.Error, StringComparison.Ordinal);
    }

    [SkippableFact]
    public async Task A_guest_that_reboots_is_started_anew_where_that_is_asked_for()
    {
        host.Require();
        string console = $"{host.Scratch}/restarts";
        string vmm = host.Command(Arguments("debian-12", "console=ttyS0 quiet vmm.end=reboot")
            .Concat(["--on-reboot", "restart", "--serial", $"file={console}"]));
        CommandResult result = await host.Shell(
            $"{vmm} & pid=$!; until [ \"$(grep -c 'VMM-GUEST cpus' {console} 2>/dev/null)\" -ge 3 ]; do sleep 0.2; done; kill $pid; wait $pid; echo code=$?",
            s_limit);
        log.WriteLine(result.Output + result.Error);
        Assert.Contains("code=143", result.Output, StringComparison.Ordinal);
    }

    [SkippableFact]
    public async Task The_boot_timers_of_Firecracker_and_Cloud_Hypervisor_guests_are_heard()
    {
        host.Require();
        CommandResult result = await host.RunVmm(
            [.. Arguments("debian-12", "console=ttyS0 quiet vmm.boottimer vmm.end=poweroff"), "--log-level", "info"], s_limit);
        log.WriteLine(result.Output + result.Error);
        Assert.Equal(0, result.ExitCode);
        Assert.Contains("Guest boot: Booted code 0x7b after ", result.Error, StringComparison.Ordinal);
        Assert.Contains("Guest boot: Kernel code 0x41 after ", result.Error, StringComparison.Ordinal);
    }

    private List<string> Arguments(string image, string commandLine) =>
    [
        "run", "--kernel", host.Image(image, "vmlinuz"), "--initramfs", host.Image(image, "initramfs.cpio.gz"),
        "--cmdline", commandLine, "--memory", "size=256M",
    ];

    private async Task<CommandResult> Run(string image, string commandLine)
    {
        CommandResult result = await host.RunVmm(Arguments(image, commandLine), s_limit);
        log.WriteLine(result.Output + result.Error);
        Assert.False(result.TimedOut, "the guest did not end");
        return result;
    }
}
