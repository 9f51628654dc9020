using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Vmm.Machine.Console;
using Vmm.Testing.Specification;
using Vmm.Testing.Triage;

namespace Vmm.Testing.Running;

/// <summary>
/// What a test makes of its guest's console: goes through the steps, looks for what is forbidden, and cuts out what a kernel reports about itself. Knows
/// nothing of machines and of time, so a text is judged the same however it arrives.
/// </summary>
internal sealed partial class ConsoleWatch
{
    private const int LastLines = 40;

    /// <summary>Reports that are kept: a kernel that is allowed to warn may do so for as long as the test takes.</summary>
    internal const int MaximumReports = 32;

    private readonly TestSpec _spec;
    private readonly ReportScanner _scanner = new();
    private readonly DdbDialogue _debugger = new();
    private readonly Queue<string> _last = new();
    private readonly List<GuestReport> _reports = [];
    private readonly List<StepResult> _done = [];
    private string _unfinished = "";
    private string _lastOfGuest = "";
    private int _column;
    private int? _telling;
    private TimeSpan _at;

    internal ConsoleWatch(TestSpec spec) => _spec = spec;

    /// <summary>The verdict that the console gave, or null so far.</summary>
    internal Outcome? Outcome { get; private set; }

    /// <summary>The step that is waited for; as many as there are once all are done.</summary>
    internal int Step { get; private set; }

    /// <summary>The steps that are done.</summary>
    internal IReadOnlyList<StepResult> Done => _done;

    internal bool StepsDone => Step == _spec.Steps.Count;

    /// <summary>A report has begun and not ended.</summary>
    internal bool IsCollecting => _scanner.IsCollecting;

    /// <summary>The kernel's debugger waits for commands.</summary>
    internal DdbDialogue Debugger => _debugger;

    /// <summary>All reports so far.</summary>
    internal IReadOnlyList<GuestReport> Reports => _reports;

    /// <summary>The reports that say why it failed: the one that decided and those after it, or those that came after another decision.</summary>
    internal IEnumerable<GuestReport> Telling => _reports.Skip(_telling ?? int.MaxValue);

    /// <summary>Something else than the console decided: what is reported from now on is an answer to that.</summary>
    internal void DecidedOtherwise()
    {
        if (Outcome == null)
        {
            // What is reported from now on has room.
            _reports.Clear();
            _telling ??= 0;
        }
    }

    /// <summary>A panic was reported, though it was what the test is about.</summary>
    internal bool PanicAsExpected { get; private set; }

    /// <summary>By how much the kernel has moved itself (KASLR), where it said so.</summary>
    internal ulong KernelOffset { get; private set; }

    /// <summary>The last lines, the unfinished one too; each ends in a newline.</summary>
    internal string Tail
    {
        get
        {
            var text = new StringBuilder();
            foreach (string line in _last)
                text.Append(line).Append('\n');
            return _unfinished.Length == 0 ? text.ToString() : text.Append(_unfinished).Append('\n').ToString();
        }
    }

    /// <summary>The code on the console's last line, kernel messages left out: <c>VMM-EXIT=7</c>; null where there is none.</summary>
    internal uint? Code
    {
        get
        {
            Match match = CodeLine().Match(_unfinished.Length > 0 && !KernelMessage().IsMatch(_unfinished) ? _unfinished : _lastOfGuest);
            return match.Success && uint.TryParse(match.Groups[1].ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture, out uint code) ? code : null;
        }
    }

    /// <summary>What is to be typed now, without being waited for; empty for nothing.</summary>
    internal Queue<string> ToSend { get; } = new();

    /// <summary>Begins: the steps before the first that waits are done at once.</summary>
    internal void Begin(TimeSpan at) => SendSteps(at);

    /// <summary>A line has ended.</summary>
    internal void Line(TimeSpan at, string line)
    {
        _at = at;
        _last.Enqueue(line);
        if (_last.Count > LastLines)
            _last.Dequeue();
        if (line.Length > 0 && !KernelMessage().IsMatch(line))
            _lastOfGuest = line;
        if (KernelSymbols.TryReadKernelOffset(line, out ulong offset))
            KernelOffset = offset;
        _scanner.Line(line);
        _debugger.Line(line);
        TakeReports();
        Forbid(line);
        Judge(at, line);
        _unfinished = "";
        _column = 0;
    }

    /// <summary>The last line has grown.</summary>
    internal void Unfinished(TimeSpan at, string text)
    {
        _unfinished = text;
        if (_debugger.Prompt(text) is { } command)
        {
            // The report is what came before the prompt.
            Flush();
            if (Outcome == null)
                Decide(Verdict.Panic, "stopped in ddb", "The guest's kernel stopped in its debugger.");
            ToSend.Enqueue(command + "\n");
        }
        Judge(at, text);
    }

    /// <summary>What is being collected is complete: the machine has ended, or says nothing more.</summary>
    internal void Flush()
    {
        _scanner.End();
        TakeReports();
    }

    // Whole lines only: half a line may look like what is forbidden, and come to something else.
    private void Forbid(string line)
    {
        foreach (Regex pattern in _spec.Forbid)
        {
            if (Outcome != null)
                return;
            if (ConsolePattern.Match(pattern, line) != null)
                Decide(Verdict.ForbiddenText, $"forbidden /{pattern}/", $"The console showed what /{pattern}/ forbids: {line.Trim()}");
        }
    }

    private void Judge(TimeSpan at, string text)
    {
        if (Outcome != null)
            return;
        while (!StepsDone && _spec.Steps[Step].Wait is { } wait && ConsolePattern.Match(wait, text, Math.Min(_column, text.Length)) is { } match)
        {
            _column = match.Index + match.Length;
            Finish(at);
            SendSteps(at);
            // Two steps are two places in the text, also where a pattern matches nothing at all.
            if (match.Length == 0)
                break;
        }
        if (StepsDone && _spec.Steps.Count > 0 && _spec.Exits.Count == 0 && _spec.Code == null)
            Outcome = Outcome.Passed;
    }

    private void SendSteps(TimeSpan at)
    {
        while (!StepsDone && _spec.Steps[Step].Send is { } text)
        {
            ToSend.Enqueue(text);
            Finish(at);
        }
    }

    private void Finish(TimeSpan at)
    {
        _done.Add(new StepResult(_spec.Steps[Step].Description, true, at));
        Step++;
    }

    private void TakeReports()
    {
        while (_scanner.TryTake(out GuestReport report))
        {
            Keep(report);
            if (Outcome == null)
                Consider(report);
        }
    }

    /// <summary>The newest ones, until one tells why the test failed; then that one and what comes after it.</summary>
    private void Keep(GuestReport report)
    {
        if (_reports.Count == MaximumReports)
        {
            if (_telling != null)
                return;
            _reports.RemoveAt(0);
        }
        _reports.Add(report);
    }

    private void Consider(GuestReport report)
    {
        (Verdict Verdict, bool Fails, string What) meaning = report.Kind switch
        {
            ReportKind.Panic => (Verdict.Panic, true, "panicked"),
            ReportKind.Oops or ReportKind.Kasan => (Verdict.Oops, _spec.FailOn.HasFlag(Failures.Oops), "reported a fault"),
            ReportKind.HungTask or ReportKind.RcuStall or ReportKind.Lockup => (Verdict.Hang, _spec.FailOn.HasFlag(Failures.Hang), "reported that something hangs"),
            _ => (Verdict.Warning, _spec.FailOn.HasFlag(Failures.Warning), "warned"),
        };
        if (!meaning.Fails || IsIgnored(report))
            return;
        if (report.Kind == ReportKind.Panic && _spec.Exits.Contains(Machine.VmExitReason.Panic))
        {
            PanicAsExpected = true;
            return;
        }
        // A panic that only says that witness(4) found something is named by what it found.
        string title = report.Kind == ReportKind.Panic && report.Title.Contains("witness", StringComparison.Ordinal) && _reports.Count > 1 && _reports[^2].Kind == ReportKind.Witness
            ? _reports[^2].Title : report.Title;
        // What witness(4) found comes with the panic that it made.
        _telling ??= title == report.Title ? _reports.Count - 1 : _reports.Count - 2;
        string waiting = StepsDone ? "" : $", while waiting for /{_spec.Steps[Step].Wait}/";
        Decide(meaning.Verdict, title, string.Create(CultureInfo.InvariantCulture, $"The guest's kernel {meaning.What} {_at.TotalSeconds:F1} s after its start{waiting}."));
    }

    private bool IsIgnored(GuestReport report)
    {
        foreach (Regex pattern in _spec.Ignore)
        {
            if (ConsolePattern.Match(pattern, report.Title) != null)
                return true;
        }
        return false;
    }

    private void Decide(Verdict verdict, string title, string message) => Outcome ??= new Outcome(verdict, title, message);

    [GeneratedRegex(@"^(<\d+>)?\[ *\d+\.\d+\]", RegexOptions.NonBacktracking | RegexOptions.CultureInvariant)]
    private static partial Regex KernelMessage();

    [GeneratedRegex(@"^VMM-EXIT=(\d{1,10})\s*$", RegexOptions.NonBacktracking | RegexOptions.CultureInvariant)]
    private static partial Regex CodeLine();
}
