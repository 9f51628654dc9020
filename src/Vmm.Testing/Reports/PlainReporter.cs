using System.Globalization;
using System.Text;

namespace Vmm.Testing.Reports;

/// <summary>Plain lines for a CI system's log: no colours, nothing overwritten, and nothing of a guest's at the beginning of a line.</summary>
/// <param name="output">Where to. Left open.</param>
public sealed class PlainReporter(TextWriter output) : IRunReporter
{
    /// <summary>Lines of an excerpt that are shown; a report of KASAN has about 60.</summary>
    private const int ExcerptLines = 80;
    private const int LineLength = 400;

    private readonly TextOutput _output = new(output, "the run's output");

    /// <inheritdoc/>
    public void RunStarted(IReadOnlyList<string> tests, int jobs)
    {
        ArgumentNullException.ThrowIfNull(tests);
        _output.Write(tests.Count <= 1 || jobs <= 1
            ? $"{GuestText.Count(tests.Count, "test")}\n"
            : string.Create(CultureInfo.InvariantCulture, $"{GuestText.Count(tests.Count, "test")}, {Math.Min(jobs, tests.Count)} at once\n"));
    }

    /// <inheritdoc/>
    public void AttemptStarted(string test, int attempt) =>
        _output.Write($"start {Name(test)}{(attempt > 1 ? string.Create(CultureInfo.InvariantCulture, $" (attempt {attempt})") : "")}\n");

    /// <inheritdoc/>
    public void Progress(string test, string what)
    {
        // A log has no place for what is of no use a moment later.
    }

    /// <inheritdoc/>
    public void AttemptFailed(string test, int attempt, AttemptResult result)
    {
        ArgumentNullException.ThrowIfNull(result);
        _output.Write(string.Create(CultureInfo.InvariantCulture,
            $"retry {Name(test)} (attempt {attempt} came to {GuestText.What(result.Verdict, Short(result.Title))}, after {GuestText.Duration(result.Duration)})\n"));
    }

    /// <inheritdoc/>
    public void TestEnded(TestResult result)
    {
        ArgumentNullException.ThrowIfNull(result);
        var text = new StringBuilder();
        string after = GuestText.Duration(result.Duration);
        if (result.Verdict == Verdict.Pass)
        {
            text.Append(CultureInfo.InvariantCulture, $"pass  {Name(result.Name)} ({after}{(result.IsFlaky ? $", flaky: attempt {result.Attempts.Count}" : "")})\n");
            _output.Write(text.ToString());
            return;
        }

        text.Append(CultureInfo.InvariantCulture, $"FAIL  {Name(result.Name)} ({after}): {GuestText.What(result.Verdict, Short(result.Title))}\n");
        if (result.Message.Length > 0)
            text.Append("      what: ").Append(GuestText.Cut(GuestText.Line(result.Message), 2 * LineLength)).Append('\n');
        string rest = result.ConsoleLog is null ? "" : "; the console log has them";
        foreach (string line in GuestText.CutMiddle(GuestText.Lines(result.Excerpt), ExcerptLines, LineLength, rest))
            text.Append("      | ").Append(line).Append('\n');
        if (result.ConsoleLog is { } log)
            text.Append("      console log: ").Append(GuestText.Line(log)).Append('\n');
        if (result.Repeat.Length > 0)
            text.Append("      run it again: ").Append(GuestText.Line(result.Repeat)).Append('\n');
        _output.Write(text.ToString());
    }

    /// <inheritdoc/>
    public void RunEnded(RunSummary summary)
    {
        ArgumentNullException.ThrowIfNull(summary);
        var text = new StringBuilder();
        foreach (TestResult result in summary.Results)
        {
            if (result.Verdict != Verdict.Pass)
                text.Append(CultureInfo.InvariantCulture, $"failed: {Name(result.Name)}: {GuestText.What(result.Verdict, Short(result.Title))}\n");
            else if (result.IsFlaky)
                text.Append(CultureInfo.InvariantCulture, $"flaky: {Name(result.Name)}: passed at attempt {result.Attempts.Count}\n");
        }

        text.Append(CultureInfo.InvariantCulture,
            $"{GuestText.Count(summary.Results.Count, "test")} in {GuestText.Duration(summary.Duration)}: {GuestText.Counts(summary.Results)}\n");
        _output.Write(text.ToString());
        _output.Check();
    }

    private static string Name(string test) => Short(GuestText.Line(test));

    private static string Short(string title) => GuestText.Cut(title, LineLength);
}
