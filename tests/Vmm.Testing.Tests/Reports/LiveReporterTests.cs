using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;
using Spectre.Console;
using Vmm.Core.Interop;

namespace Vmm.Testing.Tests.Reports;

public sealed unsafe class LiveReporterTests
{
    private const int Patience = 20_000;

    [Fact]
    public void A_run_leaves_what_has_ended_and_a_summary()
    {
        var terminal = new FakeTerminal(80, 24);
        RunSummary summary = Samples.Summary(Samples.Passed("boots"), Samples.Flaky("net"), Samples.Panicked("[red]unix[/]"));
        using (var reporter = new LiveReporter(terminal.Console))
        {
            Samples.Play(reporter, summary);
            reporter.RunEnded(summary);
        }

        List<string> lines = terminal.Screen.Lines;
        Assert.Contains("pass  boots (4.25 s)", lines);
        Assert.Contains("retry net (attempt 1 came to hang: silent for 30 s)", lines);
        Assert.Contains("pass  net (4.25 s, flaky: attempt 2)", lines);
        Assert.Contains("      | Kernel panic - not syncing: Fatal exception", lines);

        // The last line above the display: it goes first where the cursor is not where it should be.
        Assert.Contains("      run it again: vmm test tests/boot.json --only '[red]unix[/]'", lines);
        Assert.Contains(lines, line => line.StartsWith("│ [red]unix[/] │ panic", StringComparison.Ordinal));
        Assert.Equal("3 tests in 65.0 s: 2 pass, 1 panic", lines[^1]);
        Assert.DoesNotContain(lines, line => line.Contains("running", StringComparison.Ordinal));
        Assert.True(terminal.Screen.CursorShown);
    }

    [Fact]
    public void What_runs_is_shown_with_what_it_does()
    {
        var terminal = new FakeTerminal(80, 24);
        using var reporter = new LiveReporter(terminal.Console);
        reporter.RunStarted(["a", "b"], 2);
        reporter.AttemptStarted("a", 1);
        reporter.AttemptStarted("b", 2);
        reporter.Progress("a", "wait for /login: /");
        reporter.Progress("b", "[    1.0] 🙂 \u202E [bold]x[/] \e[2J" + new string('y', 200));
        terminal.Expect(lines => lines is [var a, var b, var sum] && a.EndsWith("s a wait for /login: /", StringComparison.Ordinal)
            && b.Contains("s b (attempt 2) [    1.0] ? ? [bold]x[/] ?[2Jyyyy", StringComparison.Ordinal) && b.EndsWith('…')
            && sum.StartsWith("0 of 2 tests done, 2 running, ", StringComparison.Ordinal));
        Assert.False(terminal.Screen.CursorShown);
        reporter.TestEnded(Samples.Passed("a"));
        terminal.Expect(lines => lines is ["pass  a (4.25 s)", var b, var sum] && b.Contains("s b (attempt 2)", StringComparison.Ordinal) && sum.StartsWith("1 of 2", StringComparison.Ordinal));
        reporter.Dispose();
        Assert.Equal(["pass  a (4.25 s)"], terminal.Screen.Lines);
        Assert.True(terminal.Screen.CursorShown);
    }

    [Fact]
    public void Two_hundred_tests_at_once_fit_on_24_lines()
    {
        var terminal = new FakeTerminal(80, 24);
        TestResult[] results = [.. Enumerable.Range(0, 200).Select(i => Samples.Passed($"test-{i}-with-a-rather-long-name[kernel=6.12,cpus=16,memory=4G,transport=mmio,acpi=off]"))];
        var reporter = new LiveReporter(terminal.Console);
        reporter.RunStarted([.. results.Select(result => result.Name)], 200);
        foreach (TestResult result in results)
        {
            reporter.AttemptStarted(result.Name, 1);
            reporter.Progress(result.Name, new string('z', 500));
        }

        terminal.Expect(lines => lines.Count == 22 && lines[^2] == "… and 180 more" && lines[^1].StartsWith("0 of 200 tests done, 200 running", StringComparison.Ordinal));
        Assert.Equal(0, terminal.Screen.Wraps);
        foreach (TestResult[] some in results.Chunk(37))
        {
            foreach (TestResult result in some)
                reporter.TestEnded(result);
            terminal.Expect(lines => lines.Any(line => line.Contains(some[^1].Name[..20], StringComparison.Ordinal)));
        }

        reporter.RunEnded(Samples.Summary(results));
        reporter.Dispose();
        List<string> all = terminal.Screen.Lines;
        Assert.Equal(200, all.Count(line => line.StartsWith("pass  test-", StringComparison.Ordinal)));
        Assert.Equal("200 tests in 65.0 s: 200 pass", all[^1]);
        Assert.DoesNotContain(all, line => line.Contains("zzz", StringComparison.Ordinal) || line.Contains("more", StringComparison.Ordinal));
    }

    [Fact]
    public void It_is_drawn_four_times_a_second_however_much_happens()
    {
        var terminal = new FakeTerminal(80, 24);
        using var reporter = new LiveReporter(terminal.Console);
        reporter.RunStarted(["a"], 1);
        reporter.AttemptStarted("a", 1);
        var clock = Stopwatch.StartNew();
        long updates = 0;
        while (clock.ElapsedMilliseconds < 1500)
        {
            reporter.Progress("a", $"line {updates++}");
            if (updates % 100 == 0)
                Thread.Yield();
        }

        Assert.True(updates > 1000);
        Assert.InRange(terminal.Flushes, 2, 5 + (2 * clock.ElapsedMilliseconds / 250));
    }

    [Fact]
    public void Whatever_a_guest_writes_the_screen_has_each_test_once() => Samples.ForAllRuns(summary =>
    {
        var terminal = new FakeTerminal(80, 24);
        summary = summary with { Results = [.. summary.Results.Select(result => result with { Repeat = "vmm test", ConsoleLog = null })] };
        using (var reporter = new LiveReporter(terminal.Console))
        {
            Samples.Play(reporter, summary);
            reporter.RunEnded(summary);
        }

        Assert.True(terminal.Screen.CursorShown);
        Assert.Equal(summary.Results.Count, terminal.Screen.Lines.Count(line => line.StartsWith("pass  ", StringComparison.Ordinal) || line.StartsWith("FAIL  ", StringComparison.Ordinal)));
    }, cases: 100);

    [Fact]
    public void A_terminal_that_is_gone_is_said_at_the_end()
    {
        IAnsiConsole console = AnsiConsole.Create(new AnsiConsoleSettings { Out = new Broken(), Ansi = AnsiSupport.Yes, Interactive = InteractionSupport.Yes });
        using var reporter = new LiveReporter(console);
        RunSummary summary = Samples.Summary(Samples.Passed("a"));
        Samples.Play(reporter, summary);
        Assert.Contains("gone on purpose", Assert.Throws<Vmm.Core.VmmException>(() => reporter.RunEnded(summary)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void It_ends_with_the_cursor_shown()
    {
        (int code, string output) = OnTerminal("end", _ => { });
        Assert.Equal(0, code);
        Assert.Contains("2 tests in 65.0 s: 1 pass, 1 panic", output, StringComparison.Ordinal);
        CursorIsShown(output);
    }

    [Theory]
    [InlineData(LibC.SIGTERM)]
    [InlineData(LibC.SIGINT)]
    [InlineData(LibC.SIGHUP)]
    public void A_signal_ends_it_with_the_cursor_shown(int signal)
    {
        (int code, string output) = OnTerminal("wait", process => _ = kill(process.Id, signal));
        Assert.Equal(128 + signal, code);
        CursorIsShown(output);
    }

    [Fact]
    public void A_second_signal_ends_it_on_the_spot_with_the_cursor_shown()
    {
        (int code, string output) = OnTerminal("stuck", process =>
        {
            _ = kill(process.Id, LibC.SIGINT);
            Thread.Sleep(200);
            _ = kill(process.Id, LibC.SIGTERM);
        });
        Assert.Equal(128 + LibC.SIGTERM, code);
        CursorIsShown(output);
    }

    [Fact]
    public void A_crash_ends_it_with_the_cursor_shown()
    {
        (int code, string output) = OnTerminal("throw", _ => { });
        Assert.Equal(128 + 6, code);
        CursorIsShown(output);
    }

    [Theory]
    [InlineData("> /dev/null")]
    [InlineData("| cat")]
    public void Where_there_is_no_terminal_there_is_no_display(string redirection)
    {
        using Process process = Process.Start(new ProcessStartInfo("/bin/bash", ["-c", $"set -o pipefail; '{Program}' live-host end {redirection}"]) { RedirectStandardOutput = true })!;
        process.StandardOutput.ReadToEnd();
        Assert.True(process.WaitForExit(Patience));
        Assert.Equal(3, process.ExitCode);
    }

    private static string Program => Path.ChangeExtension(typeof(LiveReporterTests).Assembly.Location, null);

    private static void CursorIsShown(string output)
    {
        int hidden = output.LastIndexOf("\e[?25l", StringComparison.Ordinal);
        Assert.True(hidden >= 0, "It was never hidden.");
        Assert.True(output.LastIndexOf("\e[?25h", StringComparison.Ordinal) > hidden, "It is still hidden.");
    }

    /// <summary>Runs the program on a pseudo-terminal; once it shows what runs, does something to it; gives its exit code and all it wrote.</summary>
    private static (int Code, string Output) OnTerminal(string mode, Action<Process> then)
    {
        int master, slave;
        byte* name = stackalloc byte[128];
        Assert.Equal(0, LibC.openpty(&master, &slave, name, null, null));
        try
        {
            Assert.Equal(0, LibC.fcntl(master, 2 /* F_SETFD */, 1));
            Assert.Equal(0, LibC.fcntl(slave, 2 /* F_SETFD */, 1));
            string path = Marshal.PtrToStringUTF8((nint)name)!;
            var start = new ProcessStartInfo("/bin/sh", ["-c", $"exec '{Program}' live-host {mode} <> {path} >&0"]) { RedirectStandardError = true };
            start.Environment["TERM"] = "xterm";
            using var process = Process.Start(start)!;
            _ = process.StandardError.ReadToEndAsync();
            var output = new StringBuilder();
            byte* buffer = stackalloc byte[4096];
            bool told = false;
            long until = Environment.TickCount64 + Patience;
            while (true)
            {
                // What it wrote before its end is in the terminal even when it has ended.
                bool ended = process.HasExited;
                var wait = new pollfd { fd = master, events = LibC.POLLIN };
                if (LibC.poll(&wait, 1, 50) == 1 && LibC.read(master, buffer, 4096) is var length and > 0)
                    output.Append(Encoding.UTF8.GetString(buffer, (int)length));
                else if (ended)
                    return (process.ExitCode, output.ToString());
                if (!told && (mode == "end" || output.ToString().Contains("1 of 2 tests done, 1 running", StringComparison.Ordinal)))
                {
                    told = true;
                    then(process);
                }

                if (Environment.TickCount64 > until)
                {
                    process.Kill();
                    Assert.Fail($"It did not end; there was: {output}");
                }
            }
        }
        finally
        {
            _ = LibC.close(master);
            _ = LibC.close(slave);
        }
    }

    [DllImport("libc")]
    private static extern int kill(int pid, int signal);

    /// <summary>A console of Spectre's whose output goes to a <see cref="Reports.Screen"/>.</summary>
    private sealed class FakeTerminal : TextWriter, IAnsiConsoleOutput
    {
        internal FakeTerminal(int columns, int rows)
        {
            (Width, Height) = (columns, rows);
            Screen = new Screen(columns, rows);
            Console = AnsiConsole.Create(new AnsiConsoleSettings
            {
                Out = this,
                Ansi = AnsiSupport.Yes,
                Interactive = InteractionSupport.Yes,
                ColorSystem = ColorSystemSupport.Standard,
                Enrichment = new ProfileEnrichment { UseDefaultEnrichers = false },
            });
            Console.Profile.Capabilities.Unicode = true;
        }

        internal IAnsiConsole Console { get; }

        internal Screen Screen { get; }

        internal int Flushes { get; private set; }

        public TextWriter Writer => this;

        public bool IsTerminal => true;

        public int Width { get; }

        public int Height { get; }

        public override Encoding Encoding => Encoding.UTF8;

        public void SetEncoding(Encoding encoding)
        {
        }

        public override void Write(char value) => Write(value.ToString());

        public override void Write(string? value)
        {
            lock (Screen)
                Screen.Feed(value ?? "");
        }

        public override void Flush() => Flushes++;

        internal void Expect(Func<List<string>, bool> condition)
        {
            long until = Environment.TickCount64 + Patience;
            while (true)
            {
                List<string> lines;
                lock (Screen)
                    lines = Screen.Lines;
                if (condition(lines))
                    return;
                Assert.True(Environment.TickCount64 < until, "It shows:\n" + string.Join('\n', lines));
                Thread.Sleep(20);
            }
        }
    }

    private sealed class Broken : TextWriter, IAnsiConsoleOutput
    {
        public TextWriter Writer => this;

        public bool IsTerminal => true;

        public int Width => 80;

        public int Height => 24;

        public override Encoding Encoding => Encoding.UTF8;

        public void SetEncoding(Encoding encoding)
        {
        }

        public override void Write(char value) => throw new IOException("gone on purpose");

        public override void Write(string? value) => throw new IOException("gone on purpose");
    }
}
