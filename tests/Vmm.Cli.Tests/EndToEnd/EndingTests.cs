using Iced.Intel;
using Vmm.Tests.Payloads;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Cli.Tests.EndToEnd;

/// <summary>How a machine ends, with real guests: the exit code, and what is said.</summary>
public sealed class EndingTests : IDisposable
{
    private const int SIGHUP = 1, SIGINT = 2, SIGQUIT = 3, SIGTERM = 15;

    private readonly VmmProgram _vmm = new();

    public void Dispose() => _vmm.Dispose();

    [SkippableFact]
    public void Power_off_is_0_and_silent()
    {
        Outcome outcome = Run(a => { a.Print("hello\r\n"); a.PowerOff(); });
        Assert.Equal(new Outcome(0, "hello\r\n", ""), outcome);
    }

    [SkippableTheory]
    [InlineData(0x64, 0xFE)]
    [InlineData(0xCF9, 0x06)]
    public void A_reset_is_3(int port, int value) =>
        Run(a => { a.Out((ushort)port, (byte)value); a.Hang(); }).IsOneLine(ExitCodes.Rebooted, "The guest rebooted.");

    [SkippableFact]
    public void A_reset_starts_it_anew_when_told_so()
    {
        using RunningVmm vmm = Start(a => { a.Print("up "); a.Out(0x64, 0xFE); a.Hang(); }, "--on-reboot", "restart");
        vmm.ExpectOutput("up ", times: 3);
        vmm.Kill(SIGTERM);
        vmm.WaitForEnd().IsOneLine(128 + SIGTERM, "signal 15");
    }

    [SkippableFact]
    public void A_panic_is_4() =>
        Run(a => { a.Out(0x505, 1); a.Hang(); }).IsOneLine(ExitCodes.GuestPanic, "panicked");

    [SkippableFact]
    public void A_triple_fault_is_5_with_a_report()
    {
        Outcome outcome = Run(a => { a.Print("last words\r\n"); a.mov(rbx, 0x1234_5678_9ABC); a.ud2(); });
        Assert.Equal(ExitCodes.TripleFault, outcome.Code);
        AssertReport(outcome);
        Assert.Contains("triple fault", outcome.Error, StringComparison.Ordinal);
        Assert.Contains("ud2", outcome.Error, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void Code_where_no_memory_is_ends_with_a_report()
    {
        // Depending on the processor's virtualization KVM cannot emulate what it fetches there, or the guest takes a fault.
        Outcome outcome = Run(a => { a.Print("last words\r\n"); a.mov(rbx, 0x1234_5678_9ABC); a.mov(rax, 0xD000_0000UL); a.jmp(rax); });
        Assert.Contains(outcome.Code, new[] { ExitCodes.KvmInternalError, ExitCodes.TripleFault });
        AssertReport(outcome);
    }

    [SkippableTheory]
    [InlineData(SIGTERM)]
    [InlineData(SIGINT)]
    [InlineData(SIGHUP)]
    [InlineData(SIGQUIT)]
    public void A_signal_ends_a_guest_that_hangs(int signal)
    {
        using RunningVmm vmm = Start(a => { a.Print("hanging"); a.Hang(); });
        vmm.ExpectOutput("hanging");
        vmm.Kill(signal);
        vmm.WaitForEnd().IsOneLine(128 + signal, $"signal {signal}");
    }

    [SkippableTheory]
    [InlineData("tag=a,socket=S,server=on")]
    [InlineData("tag=a,exec=\"sh -c 'touch S; exec sleep 1000' # {fd}\"")]
    [InlineData("tag=a,exec=\"sh -c 'touch S; exec sleep 1000' # {socket}\"")]
    public void A_signal_ends_a_wait_for_a_back_end(string share)
    {
        NeedsKvm.Check();
        string kernel = _vmm.Make("kernel", GuestProgram.Elf(a => a.Hang()));
        string path = Path.Combine(_vmm.Folder, "S");
        using RunningVmm vmm = _vmm.Start("run", "--kernel", kernel, "--fs", share.Replace("S", path, StringComparison.Ordinal));
        Assert.True(SpinWait.SpinUntil(() => File.Exists(path), VmmProgram.Patience), "Nobody waits.");
        vmm.Kill(SIGTERM);
        vmm.WaitForEnd().IsOneLine(128 + SIGTERM, "signal 15");
        Assert.Equal(share.Contains("exec", StringComparison.Ordinal), File.Exists(path));
    }

    [SkippableFact]
    public void A_signal_ends_a_guest_that_sleeps_for_ever()
    {
        using RunningVmm vmm = Start(a => { a.Print("asleep"); a.cli(); a.hlt(); a.Hang(); });
        vmm.ExpectOutput("asleep");
        vmm.Kill(SIGTERM);
        vmm.WaitForEnd().IsOneLine(128 + SIGTERM);
    }

    [SkippableFact]
    public void A_reader_that_goes_away_is_1()
    {
        NeedsKvm.Check();
        string kernel = _vmm.Make("kernel", GuestProgram.Elf(a => a.PrintForEver("all work and no play\r\n")));
        _vmm.Prefix = "";
        _vmm.Redirections = "</dev/null | head -c 5 >/dev/null; exit ${PIPESTATUS[0]}";
        _vmm.Run("run", "--kernel", kernel).IsOneLine(ExitCodes.HostError, "standard output", "Broken pipe");
    }

    [SkippableFact]
    public void A_closed_standard_output_is_1()
    {
        NeedsKvm.Check();
        string kernel = _vmm.Make("kernel", GuestProgram.Elf(a => a.PrintForEver("all work and no play\r\n")));
        _vmm.Redirections = "</dev/null >&-";
        _vmm.Run("run", "--kernel", kernel).IsOneLine(ExitCodes.HostError, "standard output");
    }

    [SkippableFact]
    public void What_a_guest_writes_never_gets_into_a_file_that_took_the_number_of_a_closed_output()
    {
        NeedsKvm.Check();
        string kernel = _vmm.Make("kernel", GuestProgram.Elf(a => { a.Print("secret"); a.PowerOff(); }));
        _vmm.MayRemain.UnionWith(["log", "debug"]);
        _vmm.Redirections = "</dev/null >&- 2>&-";
        Outcome outcome = _vmm.Run("run", "--kernel", kernel, "--log-file", "log", "--log-level", "trace", "--debug-console", "file=debug");
        Assert.Equal(ExitCodes.HostError, outcome.Code);
        foreach (string file in Directory.GetFiles(_vmm.RunFolder))
            Assert.DoesNotContain("secret", File.ReadAllText(file), StringComparison.Ordinal);
    }

    [SkippableTheory]
    [InlineData("<&-")]
    [InlineData("<&- 2>&-")]
    [InlineData("</dev/null 2>/dev/full")]
    public void A_closed_input_or_error_output_does_not_matter(string redirections)
    {
        _vmm.Redirections = redirections;
        Outcome outcome = Run(a => { a.Print("hello"); a.PowerOff(); });
        Assert.Equal(new Outcome(0, "hello", ""), outcome);
    }

    private static void AssertReport(Outcome outcome)
    {
        Assert.StartsWith("vmm: ", outcome.Error, StringComparison.Ordinal);
        Assert.Contains("rip ", outcome.Error, StringComparison.Ordinal);
        Assert.Contains("rbx 0000123456789abc", outcome.Error, StringComparison.Ordinal);
        Assert.Contains("last words", outcome.Error, StringComparison.Ordinal);
    }

    private Outcome Run(Action<Assembler> guest, params string[] more)
    {
        using RunningVmm vmm = Start(guest, more);
        return vmm.WaitForEnd();
    }

    private RunningVmm Start(Action<Assembler> guest, params string[] more)
    {
        NeedsKvm.Check();
        string kernel = _vmm.Make("kernel", GuestProgram.Elf(guest));
        return _vmm.Start(["run", "--kernel", kernel, "--memory", "size=64M", .. more]);
    }
}
