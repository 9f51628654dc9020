using Iced.Intel;
using Vmm.Tests.Payloads;

namespace Vmm.Cli.Tests.EndToEnd;

/// <summary>The program on a terminal: however it ends, the terminal is as before.</summary>
public sealed class TerminalTests : IDisposable
{
    private readonly VmmProgram _vmm = new();
    private readonly PseudoTerminal _terminal = new();

    public void Dispose()
    {
        _terminal.Dispose();
        _vmm.Dispose();
    }

    [SkippableFact]
    public void Power_off() => Run(a => { a.Print("hello\r\n"); a.PowerOff(); }, ExitCodes.Success, "hello\r\n");

    [SkippableFact]
    public void A_panic_is_told_on_a_line_of_its_own() =>
        Run(a => { a.Print("oops\r\n"); a.Out(0x505, 1); a.Hang(); }, ExitCodes.GuestPanic, "oops\r\nvmm: The guest's kernel panicked");

    [SkippableFact]
    public void A_triple_fault_with_its_report() => Run(a => a.ud2(), ExitCodes.TripleFault, "rip ");

    [SkippableFact]
    public void Ctrl_A_x() => Run(Hanging, ExitCodes.EndedFromConsole, "Ended from the console", () => _terminal.Type("\u0001x"));

    [SkippableTheory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(15)]
    public void A_signal(int signal) => Run(Hanging, 128 + signal, $"Ended by signal {signal}.", signal: signal);

    [SkippableFact]
    public void A_bad_kernel()
    {
        NeedsKvm.Check();
        using RunningVmm vmm = Start(_vmm.Make("kernel", "nothing"u8));
        Assert.Equal(ExitCodes.BadArguments, vmm.WaitForEnd().Code);
        Assert.StartsWith("vmm: ", _terminal.Seen, StringComparison.Ordinal);
        Assert.Contains("neither a bzImage nor an ELF file", _terminal.Seen, StringComparison.Ordinal);
        Assert.Equal(1, _terminal.Seen.Count(c => c == '\n'));
        Assert.True(_terminal.IsAsBefore);
    }

    [SkippableFact]
    public void A_lost_terminal()
    {
        NeedsKvm.Check();
        using RunningVmm vmm = Start(_vmm.Make("kernel", GuestProgram.Elf(Hanging)));
        _terminal.Expect("hanging");
        _terminal.Lose();

        // Its session gets SIGHUP as well; whichever comes first.
        Assert.Contains(vmm.WaitForEnd().Code, new[] { ExitCodes.HostError, 129 });
    }

    [SkippableFact]
    public void Every_moment_of_the_start_is_a_good_one_for_a_signal()
    {
        NeedsKvm.Check();
        string kernel = _vmm.Make("kernel", GuestProgram.Elf(a => a.Hang()));
        for (int milliseconds = 20; milliseconds < 340; milliseconds += 20)
        {
            using RunningVmm vmm = Start(kernel);
            Thread.Sleep(milliseconds);
            vmm.Kill(15);
            Assert.Equal(143, vmm.WaitForEnd().Code);
            Assert.True(_terminal.IsAsBefore, $"after {milliseconds} ms");
        }
    }

    private static void Hanging(Assembler a)
    {
        a.Print("hanging");
        a.Hang();
    }

    private void Run(Action<Assembler> guest, int code, string expected, Action? then = null, int signal = 0)
    {
        NeedsKvm.Check();
        using RunningVmm vmm = Start(_vmm.Make("kernel", GuestProgram.Elf(guest)));
        if (then != null || signal != 0)
        {
            _terminal.Expect("hanging");
            Assert.True(_terminal.IsRaw);
            then?.Invoke();
            if (signal != 0)
                vmm.Kill(signal);
        }

        Assert.Equal(code, vmm.WaitForEnd().Code);
        _terminal.Expect(expected);
        Assert.True(_terminal.IsAsBefore, "The terminal's mode is another.");
    }

    private RunningVmm Start(string kernel)
    {
        _vmm.Redirections = $"<>{_terminal.Path} >&0 2>&0";
        return _vmm.Start("run", "--kernel", kernel, "--memory", "size=64M");
    }
}
