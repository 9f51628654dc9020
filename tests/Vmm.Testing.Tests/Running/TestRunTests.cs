using System.Collections.Concurrent;
using Iced.Intel;
using Vmm.Machine;
using Vmm.Machine.Configuration;
using Vmm.Testing.Reports;
using Vmm.Testing.Running;
using Vmm.Testing.Specification;
using Vmm.Testing.Tests.Triage;
using Vmm.Tests.Payloads;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Testing.Tests.Running;

/// <summary>Verdicts of small payloads on this host's KVM; stock kernels have theirs in the boot tests.</summary>
public sealed class TestRunTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-verdicts-").FullName;

    public TestRunTests() => NeedsKvm.Check();

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [SkippableFact]
    public Task What_was_expected_came() => Expect(Verdict.Pass, a => { a.Print("hello\n"); a.Hang(); }, Wait("hello"));

    [SkippableFact]
    public Task Without_steps_a_power_off_passes() => Expect(Verdict.Pass, a => a.PowerOff(), new TestSpec());

    [SkippableFact]
    public Task It_ended_too_early() => Expect(Verdict.ExpectationNotMet, a => { a.Print("hello\n"); a.PowerOff(); }, Wait("goodbye"), "wait for /goodbye/");

    [SkippableFact]
    public Task It_ended_otherwise() => Expect(Verdict.ExpectationNotMet, a => { a.Print("hello\n"); a.PowerOff(); }, Wait("hello") with { Exits = [VmExitReason.Reboot] }, "exit reboot");

    [SkippableFact]
    public Task It_ended_as_expected() => Expect(Verdict.Pass, a => { a.Print("hello\n"); a.Out(0x64, 0xFE); a.Hang(); }, Wait("hello") with { Exits = [VmExitReason.Reboot] });

    [SkippableFact]
    public Task It_said_what_it_may_not() => Expect(Verdict.ForbiddenText, a => { a.Print("bad thing\nhello\n"); a.Hang(); }, Wait("hello") with { Forbid = [TestStep.Pattern("t", "bad")] }, "forbidden /bad/");

    [SkippableFact]
    public Task It_panicked() => Expect(Verdict.Panic, a => { a.Out(0x505, 1); a.Hang(); }, Wait("hello"), "guest panic");

    [SkippableFact]
    public Task It_panicked_as_expected() => Expect(Verdict.Pass, a => { a.Out(0x505, 1); a.Hang(); }, new TestSpec { Exits = [VmExitReason.Panic] });

    [SkippableFact]
    public async Task It_shut_down_by_a_triple_fault()
    {
        TestResult result = await Expect(Verdict.TripleFault, a => { a.mov(rbx, 0x1234_5678_9ABC); a.ud2(); }, Wait("hello"), "triple fault");
        Assert.Contains("rip ", result.Vcpus, StringComparison.Ordinal);
    }

    [SkippableFact]
    public async Task It_was_silent()
    {
        TestResult result = await Expect(Verdict.Hang, a => { a.mov(rbx, 0x1234_5678_9ABC); a.Print("hello\n"); a.Hang(); }, Wait("goodbye") with { Hang = TimeSpan.FromSeconds(1) }, "no output");
        Assert.Contains("rbx 0000123456789abc", result.Vcpus, StringComparison.Ordinal);
        Assert.Contains("hello", result.Excerpt, StringComparison.Ordinal);
    }

    [SkippableFact]
    public Task It_spoke_for_too_long() => Expect(Verdict.Timeout, a => a.PrintForEver("hello\n"), Wait("goodbye") with { Timeout = TimeSpan.FromSeconds(2), Hang = TimeSpan.FromSeconds(30) });

    [SkippableFact]
    public Task A_step_took_too_long() => Expect(Verdict.Timeout, a => a.PrintForEver("hello\n"), new TestSpec { Steps = [TestStep.Parse("t", "wait=hello"), TestStep.Parse("t", "wait=goodbye,timeout=500ms")] });

    [SkippableFact]
    public Task It_rebooted_for_ever() => Expect(Verdict.RebootLoop, a => { a.Print("hello\n"); a.Out(0x64, 0xFE); a.Hang(); }, Wait("goodbye") with { MaxReboots = 3 }, "reboot loop");

    [SkippableTheory]
    [InlineData(0u, null, Verdict.Pass)]
    [InlineData(3u, null, Verdict.GuestFailure)]
    [InlineData(3u, 3u, Verdict.Pass)]
    [InlineData(0u, 3u, Verdict.GuestFailure)]
    public Task It_handed_over_a_code(uint code, uint? expected, Verdict verdict) =>
        Expect(verdict, a => { a.mov(eax, code); a.mov(dx, 0xF4); a.@out(dx, eax); a.Hang(); }, new TestSpec { Code = expected });

    [SkippableFact]
    public Task Its_last_line_was_a_code() => Expect(Verdict.GuestFailure, a => { a.Print("VMM-EXIT=9\r\n"); a.PowerOff(); }, new TestSpec(), "guest code 9");

    [SkippableFact]
    public async Task A_kernel_that_is_not_there_is_the_hosts_error()
    {
        TestCase test = Case("boot", a => a.PowerOff(), new TestSpec());
        File.Delete(test.Config.Payload.Kernel!);
        Assert.Equal(Verdict.VmmError, (await Run([test])).Results[0].Verdict);
    }

    [SkippableFact]
    public async Task What_fails_is_tried_again()
    {
        var seen = new Seen();
        RunSummary summary = await Run([Case("boot", a => { a.Print("hello\n"); a.PowerOff(); }, Wait("goodbye") with { Retries = 2 })], seen);
        Assert.Equal(3, summary.Results[0].Attempts.Count);
        Assert.Equal(2, seen.Retries);
        Assert.False(summary.Results[0].IsFlaky);
    }

    [SkippableFact]
    public async Task A_guest_is_spoken_with()
    {
        var spec = new TestSpec { Steps = [TestStep.Parse("t", "wait=login: $"), TestStep.Parse("t", "send=r\\n"), TestStep.Parse("t", "wait=^r$")] };
        await Expect(Verdict.Pass, a =>
        {
            a.Print("login: \n");
            Label wait = a.CreateLabel();
            a.Label(ref wait);
            a.mov(dx, 0x3FD);
            a.@in(al, dx);
            a.test(al, 1);
            a.jz(wait);
            a.mov(dx, 0x3F8);
            a.@in(al, dx);
            a.@out(dx, al);
            a.jmp(wait);
        }, spec);
    }

    /// <summary>A guest that plays a real session of OpenBSD's debugger: it says the next piece when a command was typed.</summary>
    [SkippableFact]
    public async Task An_OpenBSD_that_stopped_in_its_debugger_is_asked_what_it_knows()
    {
        string session = GoldenConsole.Resource("openbsd-witness.txt").TrimEnd('\n');
        string[] parts = session.Split("\nddb{");
        // The session's first prompt got an empty line; here the first command comes at once.
        var played = new System.Text.StringBuilder(parts[0]).Append("\nddb{0}> ");
        for (int i = 2; i < parts.Length - 1; i++)
            played.Append('\u0001').Append(parts[i][4..]).Append("\nddb{").Append(parts[i + 1][..4]);
        played.Append("\u0001machine ddbcpu 2\nInvalid cpu 2\nddb{1}> ");
        TestResult result = await Expect(Verdict.Panic, a => Play(a, played.ToString()), Wait("login:"), "witness: userret: sendmsg");
        Assert.Contains("witness: userret: returning with the following locks held:", result.Excerpt, StringComparison.Ordinal);
        Assert.Contains("panic: witness_warn", result.Excerpt, StringComparison.Ordinal);
        Assert.Equal(
            ["set $lines = 0", "set $maxwidth = 0", "show panic", "trace", "show registers", "show proc", "ps", "show all locks", "show malloc", "show all pools", "machine ddbcpu 0", "trace", "machine ddbcpu 1", "trace", "machine ddbcpu 2"],
            result.Answers.Select(answer => answer.Command));
        Assert.Equal("*cpu0: witness_warn\n", result.Answers[2].Text);
        Assert.Contains("solock r = 0 (0xfffffd8073dde420)", result.Answers[7].Text, StringComparison.Ordinal);
        Assert.Equal("Invalid cpu 0\n", result.Answers[10].Text);
        Assert.Contains("rip ", result.Vcpus, StringComparison.Ordinal);
    }

    /// <summary>Writes a text to the serial port; 1 in it waits for a line.</summary>
    private static void Play(Assembler a, string text)
    {
        Label data = a.CreateLabel(), next = a.CreateLabel(), wait = a.CreateLabel(), end = a.CreateLabel();
        a.lea(rsi, __[data]);
        a.Label(ref next);
        a.mov(al, __byte_ptr[rsi]);
        a.inc(rsi);
        a.cmp(al, 0);
        a.je(end);
        a.cmp(al, 1);
        a.je(wait);
        a.mov(dx, 0x3F8);
        a.@out(dx, al);
        a.jmp(next);
        a.Label(ref wait);
        a.mov(dx, 0x3FD);
        a.@in(al, dx);
        a.test(al, 1);
        a.jz(wait);
        a.mov(dx, 0x3F8);
        a.@in(al, dx);
        a.cmp(al, (sbyte)'\n');
        a.jne(wait);
        a.jmp(next);
        a.Label(ref end);
        a.Hang();
        a.Label(ref data);
        a.db([.. System.Text.Encoding.ASCII.GetBytes(text), 0]);
    }

    [SkippableFact]
    public async Task Fifty_at_once_do_not_hear_each_other()
    {
        List<TestCase> tests = [.. Enumerable.Range(0, 50).Select(i => Case($"boot-{i}", a => { a.Print($"guest {i} is up\n"); a.Hang(); }, Wait($"^guest {i} is up$") with { Forbid = [.. Enumerable.Range(0, 50).Where(other => other != i).Select(other => TestStep.Pattern("t", $"guest {other} "))] }))];
        string folder = Path.Combine(_folder, "out");
        RunSummary summary = await new TestRun(tests, new Seen(), jobs: 8, directory: folder).RunAsync();
        Assert.All(summary.Results, result => Assert.Equal(Verdict.Pass, result.Verdict));
        Assert.Equal(tests.Select(test => test.Name), summary.Results.Select(result => result.Name));
        Assert.All(summary.Results, result => Assert.Contains($"guest {result.Name[5..]} is up", File.ReadAllText(result.ConsoleLog!), StringComparison.Ordinal));
        Assert.Equal(50, Directory.GetFiles(folder, "*.config.json").Length);
    }

    [SkippableFact]
    public async Task A_run_can_be_ended()
    {
        using var cancel = new CancellationTokenSource();
        var seen = new Seen { OnProgress = what => { if (what.Contains("hello", StringComparison.Ordinal)) cancel.Cancel(); } };
        RunSummary summary = await new TestRun([Case("one", a => { a.Print("hello\n"); a.Hang(); }, Wait("never")), Case("two", a => a.Hang(), Wait("never"))], seen).RunAsync(cancel.Token);
        Assert.Equal([Verdict.Interrupted], summary.Results.Select(result => result.Verdict));
    }

    private static TestSpec Wait(string pattern) => new() { Steps = [new TestStep(TestStep.Pattern("t", pattern), null)], Timeout = TimeSpan.FromSeconds(50) };

    private TestCase Case(string name, Action<Assembler> guest, TestSpec spec)
    {
        string kernel = Path.Combine(_folder, $"kernel-{Guid.NewGuid():n}");
        File.WriteAllBytes(kernel, GuestProgram.Elf(guest));
        var config = new VmConfig { Payload = new PayloadConfig(kernel), Memory = new MemoryConfig(64 * ByteSize.MiB), DebugExit = new DebugExitConfig(true), OnPanic = new PanicConfig(PanicAction.Continue) };
        if (spec.MaxReboots > 0)
            config = config with { OnReboot = new RebootConfig(RebootAction.Restart) };
        return new TestCase(name, "test", [], spec, config, "vmm test");
    }

    private static Task<RunSummary> Run(IReadOnlyList<TestCase> tests, Seen? seen = null) => new TestRun(tests, seen ?? new Seen()).RunAsync();

    private async Task<TestResult> Expect(Verdict verdict, Action<Assembler> guest, TestSpec spec, string? title = null)
    {
        TestResult result = (await Run([Case("boot", guest, spec)])).Results[0];
        Assert.True(verdict == result.Verdict, $"{result.Verdict}: {result.Title}: {result.Message}\n{result.Excerpt}");
        if (title != null)
            Assert.Equal(title, result.Title);
        Assert.Equal(verdict != Verdict.Pass, result.Message.Length > 0);
        return result;
    }

    private sealed class Seen : IRunReporter
    {
        internal int Retries;

        internal Action<string> OnProgress { get; init; } = _ => { };

        internal ConcurrentQueue<TestResult> Ended { get; } = new();

        public void RunStarted(IReadOnlyList<string> tests, int jobs)
        {
        }

        public void AttemptStarted(string test, int attempt)
        {
        }

        public void Progress(string test, string what) => OnProgress(what);

        public void AttemptFailed(string test, int attempt, AttemptResult result) => Interlocked.Increment(ref Retries);

        public void TestEnded(TestResult result) => Ended.Enqueue(result);

        public void RunEnded(RunSummary summary)
        {
        }
    }
}
