using System.Globalization;
using System.Text;
using Spectre.Console;
using Vmm.Core;
using Vmm.Machine.Console;

namespace Vmm.Testing.Reports;

/// <summary>
/// A run on a terminal: below, what runs now, drawn anew four times a second; above it, and scrolling away, what has ended. The cursor is
/// hidden meanwhile, and is back on every way out (<see cref="HiddenCursor"/>).
/// </summary>
public sealed class LiveReporter : IRunReporter, IDisposable
{
    private const int Interval = 250;
    private const int ExcerptLines = 30;
    private const int LineLength = 400;
    private const int SummaryRows = 40;

    private static readonly Style s_good = new(Color.Green);
    private static readonly Style s_bad = new(Color.Red, decoration: Decoration.Bold);
    private static readonly Style s_flaky = new(Color.Yellow);
    private static readonly Style s_quiet = new(Color.Grey);
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(2);

    private readonly IAnsiConsole _console;
    private readonly int _fd;
    private readonly Lock _lock = new();
    private readonly List<RunningTest> _running = [];
    private readonly AutoResetEvent _wake = new(false);
    private List<TestResult> _ended = [];
    private List<(string Test, int Attempt, AttemptResult Result)> _retried = [];
    private Thread? _thread;
    private Exception? _error;
    private long _started;
    private int _tests;
    private int _done;
    private int _failed;
    private volatile bool _stop;
    private bool _disposed;

    /// <summary>Draws on a console.</summary>
    /// <param name="console">A terminal that understands ANSI sequences.</param>
    /// <param name="fd">The descriptor of the terminal, whose cursor is shown again however the process ends; -1 when there is none.</param>
    public LiveReporter(IAnsiConsole console, int fd = -1)
    {
        ArgumentNullException.ThrowIfNull(console);
        _console = console;
        _fd = fd;
    }

    /// <summary>One for a descriptor; null when it is no terminal, or one that cannot be drawn on (<c>TERM=dumb</c>).</summary>
    public static LiveReporter? ForTerminal(int fd)
    {
        var output = new TerminalOutput(fd);
        if (!output.IsTerminal || Environment.GetEnvironmentVariable("TERM") is null or "" or "dumb")
            return null;
        IAnsiConsole console = AnsiConsole.Create(new AnsiConsoleSettings
        {
            Out = output,
            Ansi = AnsiSupport.Yes,
            Interactive = InteractionSupport.Yes,
            ColorSystem = string.IsNullOrEmpty(Environment.GetEnvironmentVariable("NO_COLOR")) ? ColorSystemSupport.Standard : ColorSystemSupport.NoColors,

            // Those look at CI systems' variables, and at more of the terminal than was asked for.
            Enrichment = new ProfileEnrichment { UseDefaultEnrichers = false },
        });
        console.Profile.Capabilities.Unicode = true;
        return new LiveReporter(console, fd);
    }

    /// <inheritdoc/>
    public void RunStarted(IReadOnlyList<string> tests, int jobs)
    {
        ArgumentNullException.ThrowIfNull(tests);
        lock (_lock)
        {
            if (_thread is not null || _stop)
                return;
            _tests = tests.Count;
            _started = Environment.TickCount64;
            _thread = new Thread(Draw) { IsBackground = true, Name = "vmm-display" };
            _thread.Start();
        }
    }

    /// <inheritdoc/>
    public void AttemptStarted(string test, int attempt)
    {
        lock (_lock)
        {
            RunningTest? running = Find(test);
            if (running is null)
                _running.Add(running = new RunningTest(test));
            running.Attempt = attempt;
            running.Started = Environment.TickCount64;
            running.What = "";
        }
    }

    /// <inheritdoc/>
    public void Progress(string test, string what)
    {
        lock (_lock)
        {
            if (Find(test) is { } running)
                running.What = what;
        }
    }

    /// <inheritdoc/>
    public void AttemptFailed(string test, int attempt, AttemptResult result)
    {
        lock (_lock)
            _retried.Add((test, attempt, result));
    }

    /// <inheritdoc/>
    public void TestEnded(TestResult result)
    {
        ArgumentNullException.ThrowIfNull(result);
        lock (_lock)
        {
            _running.RemoveAll(running => running.Name == result.Name);
            _ended.Add(result);
            _done++;
            _failed += result.Verdict == Verdict.Pass ? 0 : 1;
        }
    }

    /// <inheritdoc/>
    /// <exception cref="VmmException">The terminal could not be written.</exception>
    public void RunEnded(RunSummary summary)
    {
        ArgumentNullException.ThrowIfNull(summary);
        Stop(Timeout.InfiniteTimeSpan);
        if (_error is null)
        {
            try
            {
                WriteSummary(summary);
            }
            catch (Exception e) when (e is IOException or ObjectDisposedException)
            {
                _error = e;
            }
        }

        if (_error is not null)
            throw VmmException.Host($"Cannot write to the terminal: {_error.Message.TrimEnd('.')}; the results are in the reports.", _error);
    }

    /// <summary>Gives the terminal back, whether the run has ended or not.</summary>
    public void Dispose()
    {
        if (_disposed)
            return;
        _disposed = true;

        // A terminal that takes nothing (Ctrl-S, a reader that is gone) is given up.
        if (Stop(s_patience))
            _wake.Dispose();
        HiddenCursor.ShowNow();
    }

    private bool Stop(TimeSpan patience)
    {
        Thread? thread;
        lock (_lock)
        {
            _stop = true;
            thread = _thread;
        }

        if (thread is null)
            return true;
        if (thread.IsAlive)
            _wake.Set();
        return thread.Join(patience);
    }

    private void Draw()
    {
        try
        {
            using HiddenCursor? cursor = _fd >= 0 ? HiddenCursor.Enter(_fd) : null;

            // Two lines at least, always: Spectre cannot draw none, and to get to the beginning of one it goes up by 0, which terminals take for 1.
            var first = new ScreenLines();
            first.Add("");
            first.Add("");
            _console.Live(first).AutoClear(true).Overflow(VerticalOverflow.Crop).Start(context =>
            {
                while (true)
                {
                    // Read first: what came before the stop is still shown.
                    bool last = _stop;
                    (ScreenLines above, ScreenLines below) = Frame();
                    if (above.Count > 0)
                        _console.Write(above);
                    context.UpdateTarget(below);
                    if (last)
                        return;
                    _wake.WaitOne(Interval);
                }
            });
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException or InvalidOperationException)
        {
            // Said at the end of the run, which goes on without a display.
            _error = e;
        }
    }

    private (ScreenLines Above, ScreenLines Below) Frame()
    {
        // The last column stays free: some terminals wrap when it is written.
        int width = Math.Max(20, _console.Profile.Width) - 1;
        int room = Math.Max(1, _console.Profile.Height - 3);
        var below = new ScreenLines();
        List<TestResult> ended;
        List<(string Test, int Attempt, AttemptResult Result)> retried;
        lock (_lock)
        {
            (ended, _ended) = (_ended, []);
            (retried, _retried) = (_retried, []);
            long now = Environment.TickCount64;
            int shown = _running.Count <= room ? _running.Count : room - 1;
            for (int i = 0; i < shown; i++)
                Running(below, _running[i], now, width);
            if (shown < _running.Count)
                below.Add(Fit(string.Create(CultureInfo.InvariantCulture, $"… and {_running.Count - shown} more"), width), s_quiet);
            if (below.Count == 0)
                below.Add("");
            string failed = _failed == 0 ? "" : string.Create(CultureInfo.InvariantCulture, $", {_failed} failed");
            below.Add(Fit(string.Create(CultureInfo.InvariantCulture,
                $"{_done} of {GuestText.Count(_tests, "test")} done{failed}, {_running.Count} running, {GuestText.Duration(TimeSpan.FromMilliseconds((now - _started) / 1000 * 1000))}"), width));
        }

        var above = new ScreenLines(eraseBelow: true);
        foreach ((string test, int attempt, AttemptResult result) in retried)
        {
            above.AddWrapped("retry ", s_flaky, string.Create(CultureInfo.InvariantCulture,
                $"{Name(test)} (attempt {attempt} came to {GuestText.What(result.Verdict, GuestText.Cut(result.Title, LineLength))})"), width);
        }

        foreach (TestResult result in ended)
            Ended(above, result, width);
        return (above, below);
    }

    private static void Running(ScreenLines lines, RunningTest test, long now, int width)
    {
        string time = string.Create(CultureInfo.InvariantCulture, $"{(now - test.Started) / 1000,4} s ");
        string attempt = test.Attempt > 1 ? string.Create(CultureInfo.InvariantCulture, $"(attempt {test.Attempt}) ") : "";
        string name = Fit(Narrow(test.Name), Math.Max(8, (width - time.Length) * 2 / 5));
        int room = width - time.Length - name.Length - 1 - attempt.Length;
        string what = room < 4 ? "" : Fit(Narrow(test.What), room);
        lines.Add(Fit(time + name + " " + attempt, width), null, what, s_quiet);
    }

    private static void Ended(ScreenLines lines, TestResult result, int width)
    {
        string after = $"{Name(result.Name)} ({GuestText.Duration(result.Duration)}";
        if (result.Verdict == Verdict.Pass)
        {
            lines.AddWrapped("pass  ", result.IsFlaky ? s_flaky : s_good,
                after + (result.IsFlaky ? string.Create(CultureInfo.InvariantCulture, $", flaky: attempt {result.Attempts.Count})") : ")"), width);
            return;
        }

        lines.AddWrapped("FAIL  ", s_bad, $"{after}): {GuestText.What(result.Verdict, GuestText.Cut(result.Title, LineLength))}", width);
        if (result.Verdict == Verdict.Interrupted)
            return;
        if (result.Message.Length > 0)
            lines.AddWrapped("      what: ", null, GuestText.Cut(GuestText.Line(result.Message), LineLength), width);
        foreach (string line in GuestText.CutMiddle(GuestText.Lines(result.Excerpt), ExcerptLines, LineLength, result.ConsoleLog is null ? "" : "; the console log has them"))
            lines.AddWrapped("      | ", s_quiet, line, width, s_quiet);
        if (result.ConsoleLog is { } log)
            lines.Add("      console log: " + GuestText.Line(log));

        // Whole and in one piece, to be copied; nothing in it is a guest's.
        if (result.Repeat.Length > 0)
            lines.Add("      run it again: " + GuestText.Line(result.Repeat));
    }

    private void WriteSummary(RunSummary summary)
    {
        List<TestResult> noted = [.. summary.Results.Where(result => result.Verdict != Verdict.Pass || result.IsFlaky)];
        if (noted.Count > 0)
        {
            var table = new Table { Border = TableBorder.Rounded };
            table.AddColumn(new TableColumn(new Text("test")));
            table.AddColumn(new TableColumn(new Text("verdict")).NoWrap());
            table.AddColumn(new TableColumn(new Text("time")).NoWrap().RightAligned());
            table.AddColumn(new TableColumn(new Text("what")));
            foreach (TestResult result in noted.Take(SummaryRows))
            {
                string what = result.IsFlaky ? string.Create(CultureInfo.InvariantCulture, $"flaky: passed at attempt {result.Attempts.Count}") : result.Title;
                table.AddRow(new Text(Narrow(Name(result.Name))), new Text(result.Verdict.Name(), result.IsFlaky ? s_flaky : s_bad),
                    new Text(GuestText.Duration(result.Duration)), new Text(GuestText.Cut(Narrow(what), 160)));
            }

            _console.Write(table);
        }

        var end = new ScreenLines();
        if (noted.Count > SummaryRows)
            end.Add(string.Create(CultureInfo.InvariantCulture, $"… and {noted.Count - SummaryRows} more"));
        end.Add(string.Create(CultureInfo.InvariantCulture,
            $"{GuestText.Count(summary.Results.Count, "test")} in {GuestText.Duration(summary.Duration)}: {GuestText.Counts(summary.Results)}"), summary.Failed == 0 ? s_good : s_bad);
        _console.Write(end);
    }

    private RunningTest? Find(string test)
    {
        foreach (RunningTest running in _running)
        {
            if (running.Name == test)
                return running;
        }

        return null;
    }

    private static string Name(string test) => GuestText.Cut(GuestText.Line(test), LineLength);

    private static string Fit(string line, int width) => GuestText.Cut(line, width);

    /// <summary>
    /// Only characters that every terminal draws one column wide, so that a line's length is its width: two programs seldom agree on the width
    /// of the others, and a line that wraps would spoil the whole display.
    /// </summary>
    internal static string Narrow(string text)
    {
        var narrow = new StringBuilder(text.Length);
        foreach (Rune rune in GuestText.Line(text).EnumerateRunes())
        {
            narrow.Append(rune.Value is (>= 0x20 and < 0x7F) or (> 0xA0 and < 0x300 and not 0xAD) or (>= 0x370 and < 0x483) or (>= 0x48A and < 0x530)
                or (>= 0x2010 and <= 0x2027) or (>= 0x2500 and < 0x2600) ? (char)rune.Value : '?');
        }

        return narrow.ToString();
    }

    private sealed class RunningTest(string name)
    {
        internal string Name { get; } = name;

        internal int Attempt { get; set; }

        internal long Started { get; set; }

        internal string What { get; set; } = "";
    }
}
