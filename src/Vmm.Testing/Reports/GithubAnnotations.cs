using System.Globalization;
using System.Text;
using Vmm.Core;

namespace Vmm.Testing.Reports;

/// <summary>
/// GitHub's workflow commands: annotations for what failed and what was flaky, excerpts in groups that fold; and the job's summary page,
/// where the environment says where that is.
/// </summary>
/// <param name="output">The step's standard output. Left open.</param>
/// <param name="stepSummary">The file that the summary is appended to (<c>$GITHUB_STEP_SUMMARY</c>); null or empty for none.</param>
public sealed class GithubAnnotations(TextWriter output, string? stepSummary) : IRunReporter
{
    /// <summary>GitHub shows 10 errors and 10 warnings of a step, and says nothing of the others.</summary>
    private const int ShownAnnotations = 10;

    /// <summary>An annotation's message is a few lines on a page; the rest is in the log.</summary>
    private const int MessageLength = 2000;
    private const int TitleLength = 200;
    private const int ExcerptLines = 120;
    private const int LineLength = 500;

    /// <summary>GitHub refuses more than 1 MiB of summary of a step; UTF-8 has at most 3 bytes a character.</summary>
    private const int SummaryCharacters = 250_000;

    private readonly TextOutput _output = new(output, "the annotations for GitHub");
    private int _errors;
    private int _warnings;

    /// <inheritdoc/>
    public void RunStarted(IReadOnlyList<string> tests, int jobs)
    {
    }

    /// <inheritdoc/>
    public void AttemptStarted(string test, int attempt)
    {
    }

    /// <inheritdoc/>
    public void Progress(string test, string what)
    {
    }

    /// <inheritdoc/>
    public void AttemptFailed(string test, int attempt, AttemptResult result)
    {
    }

    /// <inheritdoc/>
    public void TestEnded(TestResult result)
    {
        ArgumentNullException.ThrowIfNull(result);
        if (result.IsFlaky)
        {
            if (Interlocked.Increment(ref _warnings) <= ShownAnnotations)
                _output.Write(Command("warning", result, $"{result.Name} is flaky", FlakyMessage(result)));
            return;
        }

        if (result.Verdict is Verdict.Pass or Verdict.Interrupted)
            return;
        var text = new StringBuilder();
        if (Interlocked.Increment(ref _errors) <= ShownAnnotations)
            text.Append(Command("error", result, $"{result.Name}: {GuestText.What(result.Verdict, result.Title)}", Message(result)));
        if (result.Excerpt.Length > 0)
        {
            text.Append("::group::").Append(Data(GuestText.Cut(GuestText.Line($"{result.Name}: console"), TitleLength))).Append('\n');
            foreach (string line in GuestText.CutMiddle(GuestText.Lines(result.Excerpt), ExcerptLines, LineLength, ""))
                text.Append("| ").Append(line).Append('\n');
            text.Append("::endgroup::\n");
        }

        _output.Write(text.ToString());
    }

    /// <inheritdoc/>
    public void RunEnded(RunSummary summary)
    {
        ArgumentNullException.ThrowIfNull(summary);
        string message = $"{GuestText.Count(summary.Results.Count, "test")} in {GuestText.Duration(summary.Duration)}: {GuestText.Counts(summary.Results)}";
        int unsaid = Math.Max(0, _errors - ShownAnnotations);
        if (unsaid > 0)
            message += string.Create(CultureInfo.InvariantCulture, $"; {unsaid} more failed than have an annotation");
        _output.Write($"::notice title=vmm test::{Data(message)}\n");
        if (!string.IsNullOrEmpty(stepSummary))
        {
            try
            {
                File.AppendAllText(stepSummary, Markdown(summary));
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
            {
                throw VmmException.Host($"Cannot append the summary to {stepSummary} (GITHUB_STEP_SUMMARY): {e.Message.TrimEnd('.')}; the annotations are in the log.", e);
            }
        }

        _output.Check();
    }

    /// <summary>The run as a page: counts, a table, and for each failure what one needs to begin with.</summary>
    internal static string Markdown(RunSummary summary)
    {
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture, $"### vmm test: {GuestText.Counts(summary.Results)}\n\n");
        text.Append("| test | verdict | time | what |\n| --- | --- | ---: | --- |\n");

        // What failed first: a long table is cut at its end.
        int rows = 0;
        foreach (TestResult result in summary.Results.OrderBy(result => result.Verdict == Verdict.Pass ? result.IsFlaky ? 1 : 2 : 0))
        {
            if (text.Length > SummaryCharacters / 2)
            {
                text.Append(CultureInfo.InvariantCulture, $"\n{summary.Results.Count - rows} more are not shown.\n");
                break;
            }

            rows++;
            string what = result.IsFlaky ? FlakyMessage(result) : result.Title;
            text.Append(CultureInfo.InvariantCulture,
                $"| {Cell(result.Name)} | {(result.IsFlaky ? "pass, flaky" : result.Verdict.Name())} | {GuestText.Duration(result.Duration)} | {Cell(what)} |\n");
        }

        foreach (TestResult result in summary.Results)
        {
            if (result.Verdict is Verdict.Pass or Verdict.Interrupted)
                continue;
            string details = Details(result);
            if (text.Length + details.Length > SummaryCharacters)
            {
                text.Append("\nDetails of further failures are in the reports.\n");
                break;
            }

            text.Append(details);
        }

        return text.Append('\n').ToString();
    }

    private static string Details(TestResult result)
    {
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture, $"\n<details><summary>{Html(Short(result.Name))}: {Html(Short(GuestText.What(result.Verdict, result.Title)))}</summary>\n\n");
        text.Append("<pre>").Append(Html(GuestText.Cut(GuestText.Line(result.Message), MessageLength))).Append('\n');
        foreach (string line in GuestText.CutMiddle(GuestText.Lines(result.Excerpt), ExcerptLines, LineLength, ""))
            text.Append(Html(line)).Append('\n');
        text.Append("\nrun it again: ").Append(Html(GuestText.Line(result.Repeat))).Append("</pre>\n\n</details>\n");
        return text.ToString();
    }

    private static string FlakyMessage(TestResult result) => string.Create(CultureInfo.InvariantCulture,
        $"It passed at attempt {result.Attempts.Count}; attempt 1 came to {GuestText.What(result.Attempts[0].Verdict, result.Attempts[0].Title)}.");

    private static string Message(TestResult result)
    {
        string log = result.ConsoleLog is { } path ? $"\nconsole log: {path}" : "";
        return GuestText.Cut(result.Message, MessageLength) + log + (result.Repeat.Length > 0 ? $"\nrun it again: {GuestText.Cut(result.Repeat, MessageLength)}" : "");
    }

    private static string Command(string command, TestResult result, string title, string message)
    {
        string file = result.Source == JunitReport.CommandLineSource ? "" : $",file={Property(GuestText.Line(result.Source))}";
        return $"::{command} title={Property(Short(title))}{file}::{Data(GuestText.Block(message))}\n";
    }

    private static string Short(string title) => GuestText.Cut(GuestText.Line(title), TitleLength);

    private static string Data(string text) => text.Replace("%", "%25", StringComparison.Ordinal).Replace("\r", "%0D", StringComparison.Ordinal)
        .Replace("\n", "%0A", StringComparison.Ordinal);

    private static string Property(string text) => Data(text).Replace(":", "%3A", StringComparison.Ordinal).Replace(",", "%2C", StringComparison.Ordinal);

    private static string Html(string text) => text.Replace("&", "&amp;", StringComparison.Ordinal).Replace("<", "&lt;", StringComparison.Ordinal)
        .Replace(">", "&gt;", StringComparison.Ordinal);

    /// <summary>A table's cell: nothing in it is markup, HTML, a mention or a link.</summary>
    private static string Cell(string text)
    {
        var cell = new StringBuilder();
        foreach (char c in Short(text))
        {
            if (c is '&' or '<' or '>' or '|' or '@' or '#' or ':')
                cell.Append(CultureInfo.InvariantCulture, $"&#{(int)c};");
            else if (char.IsAscii(c) && char.IsPunctuation(c) || c is '`' or '~' or '^' or '$' or '+' or '=')
                cell.Append('\\').Append(c);
            else
                cell.Append(c);
        }

        return cell.ToString();
    }
}
