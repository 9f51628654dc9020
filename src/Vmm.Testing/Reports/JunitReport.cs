using System.Globalization;
using System.Text;
using System.Xml;

namespace Vmm.Testing.Reports;

/// <summary>
/// JUnit's XML as Jenkins, GitLab and the actions for GitHub read it: a suite for each source of tests, retried attempts as Maven's Surefire
/// writes them. A failure's text has everything that one needs to begin with, as these systems show nothing else.
/// </summary>
/// <param name="path">Where to, as in <see cref="ReportFile"/>.</param>
public sealed class JunitReport(string path) : IRunReporter
{
    /// <summary>Lines of the console log that are put into <c>system-out</c>.</summary>
    private const int TailLines = 100;
    private const int TailBytes = 64 * 1024;

    /// <summary>GitLab refuses files of more than 30 MB; 200 tests that fail with all this stay below.</summary>
    private const int TextCharacters = 96 * 1024;

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
    }

    /// <inheritdoc/>
    public void RunEnded(RunSummary summary)
    {
        ArgumentNullException.ThrowIfNull(summary);
        ReportFile.Write(path, "the JUnit report", stream => Write(stream, summary));
    }

    internal static void Write(Stream stream, RunSummary summary)
    {
        using var xml = XmlWriter.Create(stream, new XmlWriterSettings { Encoding = new UTF8Encoding(false), Indent = true, NewLineChars = "\n", NewLineHandling = NewLineHandling.Entitize });
        xml.WriteStartDocument();
        xml.WriteStartElement("testsuites");
        xml.WriteAttributeString("name", "vmm test");
        Counts(xml, summary.Results, summary.Duration);
        foreach (IGrouping<string, TestResult> suite in summary.Results.GroupBy(result => result.Source, StringComparer.Ordinal))
            Suite(xml, suite.Key, [.. suite]);
        xml.WriteEndElement();
        xml.WriteEndDocument();
    }

    private static void Suite(XmlWriter xml, string source, List<TestResult> results)
    {
        xml.WriteStartElement("testsuite");
        Attribute(xml, "name", source);
        Counts(xml, results, TimeSpan.FromTicks(results.Sum(result => result.Duration.Ticks)));
        xml.WriteAttributeString("timestamp", results.Min(result => result.Started).UtcDateTime.ToString("yyyy-MM-ddTHH:mm:ss", CultureInfo.InvariantCulture));
        foreach (TestResult result in results)
            Test(xml, result);
        xml.WriteEndElement();
    }

    private static void Counts(XmlWriter xml, IReadOnlyList<TestResult> results, TimeSpan time)
    {
        Number(xml, "tests", results.Count);
        Number(xml, "failures", results.Count(result => result.Verdict is not (Verdict.Pass or Verdict.VmmError or Verdict.Interrupted)));
        Number(xml, "errors", results.Count(result => result.Verdict == Verdict.VmmError));
        Number(xml, "skipped", results.Count(result => result.Verdict == Verdict.Interrupted));
        Seconds(xml, time);
    }

    private static void Test(XmlWriter xml, TestResult result)
    {
        xml.WriteStartElement("testcase");
        Attribute(xml, "name", result.Name);
        Attribute(xml, "classname", result.Source);
        Seconds(xml, result.Duration);
        if (result.Source != CommandLineSource)
            Attribute(xml, "file", result.Source);
        Properties(xml, result);
        switch (result.Verdict)
        {
            case Verdict.Pass:
                break;
            case Verdict.Interrupted:
                xml.WriteStartElement("skipped");
                Attribute(xml, "message", result.Message.Length > 0 ? result.Message : "The run was interrupted.");
                xml.WriteEndElement();
                break;
            default:
                xml.WriteStartElement(result.Verdict == Verdict.VmmError ? "error" : "failure");
                Attribute(xml, "message", result.Title.Length > 0 ? result.Title : result.Verdict.Name());
                xml.WriteAttributeString("type", result.Verdict.Name());
                Text(xml, FailureText(result));
                xml.WriteEndElement();
                break;
        }

        Attempts(xml, result);
        SystemOut(xml, result);
        xml.WriteEndElement();
    }

    /// <summary>The source of tests that are in no file.</summary>
    internal const string CommandLineSource = "command line";

    private static void Properties(XmlWriter xml, TestResult result)
    {
        xml.WriteStartElement("properties");
        Property(xml, "verdict", result.Verdict.Name());
        Property(xml, "attempts", Math.Max(1, result.Attempts.Count).ToString(CultureInfo.InvariantCulture));
        foreach (string tag in result.Tags)
            Property(xml, "tag", tag);
        if (result.ConsoleLog is { } log)
            Property(xml, "console_log", log);
        Property(xml, "repeat", result.Repeat);
        xml.WriteEndElement();
    }

    private static void Property(XmlWriter xml, string name, string value)
    {
        xml.WriteStartElement("property");
        xml.WriteAttributeString("name", name);
        Attribute(xml, "value", value);
        xml.WriteEndElement();
    }

    /// <summary>Earlier attempts: <c>flakyFailure</c> where a later one passed, <c>rerunFailure</c> where none did; of errors likewise.</summary>
    private static void Attempts(XmlWriter xml, TestResult result)
    {
        if (result.Verdict == Verdict.Interrupted)
            return;
        for (int i = 0; i < result.Attempts.Count - 1; i++)
        {
            AttemptResult attempt = result.Attempts[i];
            string kind = attempt.Verdict == Verdict.VmmError ? "Error" : "Failure";
            xml.WriteStartElement((result.Verdict == Verdict.Pass ? "flaky" : "rerun") + kind);
            Attribute(xml, "message", attempt.Title.Length > 0 ? attempt.Title : attempt.Verdict.Name());
            xml.WriteAttributeString("type", attempt.Verdict.Name());
            xml.WriteStartElement("stackTrace");
            Text(xml, string.Create(CultureInfo.InvariantCulture, $"attempt {i + 1}, after {GuestText.Duration(attempt.Duration)}: {attempt.Message}"));
            xml.WriteEndElement();
            xml.WriteEndElement();
        }
    }

    private static string FailureText(TestResult result)
    {
        var text = new StringBuilder();
        text.Append(result.Message).Append('\n');
        Section(text, "console", result.Excerpt);
        foreach (TriageAnswer answer in result.Answers)
            Section(text, "answer to: " + answer.Command, answer.Text);
        Section(text, "vCPUs", result.Vcpus ?? "");
        if (result.Steps.Count > 0)
        {
            Section(text, "steps", string.Concat(result.Steps.Select(step => string.Create(
                CultureInfo.InvariantCulture, $"{(step.Done ? "done" : "NOT DONE")} at {step.At.TotalSeconds:F3} s: {step.Description}\n"))));
        }

        Section(text, "run it again", result.Repeat);
        return text.ToString();
    }

    private static void Section(StringBuilder text, string heading, string body)
    {
        if (body.Length == 0)
            return;
        text.Append("\n--- ").Append(heading).Append(" ---\n");

        // What is left out is in the console log and in the JSON report.
        if (body.Length <= TextCharacters)
            text.Append(body);
        else
            text.Append(body, 0, TextCharacters / 2).Append("\n[cut]\n").Append(body, body.Length - (TextCharacters / 2), TextCharacters / 2);
        if (!body.EndsWith('\n'))
            text.Append('\n');
    }

    private static void SystemOut(XmlWriter xml, TestResult result)
    {
        if (result.ConsoleLog is not { } log)
            return;
        xml.WriteStartElement("system-out");

        // The last line is how Jenkins and GitLab find files that belong to a test. A guest does not name any.
        string tail = Tail(log).Replace("[[ATTACHMENT", "[ [ATTACHMENT", StringComparison.OrdinalIgnoreCase);
        Text(xml, $"{tail}console log: {log}\n[[ATTACHMENT|{log}]]\n");
        xml.WriteEndElement();
    }

    /// <summary>The last lines of a file; nothing where it cannot be read, as its name is given anyway.</summary>
    private static string Tail(string log)
    {
        try
        {
            using var file = new FileStream(log, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
            long skip = Math.Max(0, file.Length - TailBytes);
            file.Position = skip;
            byte[] bytes = new byte[Math.Min(file.Length - skip, TailBytes)];
            int read = file.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false);
            string[] lines = Encoding.UTF8.GetString(bytes, 0, read).TrimEnd('\n').Split('\n');
            int first = Math.Max(skip > 0 ? 1 : 0, lines.Length - TailLines);
            return string.Join('\n', lines.AsSpan(Math.Min(first, lines.Length - 1))!) + "\n";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or NotSupportedException or ArgumentException)
        {
            return "";
        }
    }

    private static void Attribute(XmlWriter xml, string name, string value) => xml.WriteAttributeString(name, GuestText.Block(value));

    private static void Text(XmlWriter xml, string text) => xml.WriteString(GuestText.Block(text));

    private static void Number(XmlWriter xml, string name, int value) => xml.WriteAttributeString(name, value.ToString(CultureInfo.InvariantCulture));

    private static void Seconds(XmlWriter xml, TimeSpan time) => xml.WriteAttributeString("time", time.TotalSeconds.ToString("F3", CultureInfo.InvariantCulture));
}
