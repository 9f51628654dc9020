using Vmm.Machine;
using Vmm.Machine.Configuration;

/// <summary>Boots a guest in a test. KERNEL, INITRAMFS, CMDLINE and EXPECT in the environment say which, and what it shows when it is up.</summary>
public sealed class BootTests
{
    private static readonly string s_kernel = Environment.GetEnvironmentVariable("KERNEL") ?? $"/boot/vmlinuz-{File.ReadAllText("/proc/sys/kernel/osrelease").Trim()}";
    private static readonly string s_expected = Environment.GetEnvironmentVariable("EXPECT") ?? "Linux version";

    [Fact]
    public async Task The_guest_boots()
    {
        using var patience = new CancellationTokenSource(TimeSpan.FromMinutes(1));
        await using VirtualMachine vm = await VirtualMachine.StartAsync(Config(), cancel: patience.Token);

        await vm.Console.WaitForAsync(s_expected, patience.Token);

        Assert.DoesNotContain("BUG:", vm.Console.Text);
    }

    [Fact]
    public async Task A_guest_that_is_disposed_of_has_ended()
    {
        VirtualMachine vm = await VirtualMachine.StartAsync(Config());

        await vm.DisposeAsync();

        VmExit exit = await vm.WaitForExitAsync();
        Assert.Equal(VmExitReason.Stopped, exit.Reason);
    }

    private static VmConfig Config() => new()
    {
        Payload = new PayloadConfig(s_kernel, Environment.GetEnvironmentVariable("INITRAMFS"), Environment.GetEnvironmentVariable("CMDLINE") ?? "console=ttyS0"),
        Memory = new MemoryConfig(256 * ByteSize.MiB),
    };
}
