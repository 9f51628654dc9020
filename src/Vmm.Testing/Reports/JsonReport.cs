using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace Vmm.Testing.Reports;

/// <summary>Everything about a run as one JSON file, for programs. Its format is in docs/testing-reports.md.</summary>
/// <param name="path">Where to, as in <see cref="ReportFile"/>.</param>
public sealed class JsonReport(string path) : IRunReporter
{
    /// <summary>Changes when something that is there changes its name or meaning; new names may be added without.</summary>
    public const int FormatVersion = 1;

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
        ReportFile.Write(path, "the JSON report", stream => Write(stream, summary));
    }

    internal static void Write(Stream stream, RunSummary summary)
    {
        // Relaxed: the file is no part of a web page, and people read it too.
        using var json = new Utf8JsonWriter(stream, new JsonWriterOptions { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping });
        json.WriteStartObject();
        json.WriteNumber("format_version", FormatVersion);
        json.WriteStartObject("summary");
        Time(json, "started", summary.Started);
        Seconds(json, "duration_seconds", summary.Duration);
        json.WriteNumber("exit_code", Verdicts.ExitCode(summary.Results.Select(result => result.Verdict)));
        json.WriteNumber("tests", summary.Results.Count);
        json.WriteNumber("passed", summary.Passed);
        json.WriteNumber("failed", summary.Failed);
        json.WriteNumber("flaky", summary.Results.Count(result => result.IsFlaky));
        json.WriteStartObject("verdicts");
        foreach ((Verdict verdict, string name, _, _) in Verdicts.All)
            json.WriteNumber(name, summary.Results.Count(result => result.Verdict == verdict));
        json.WriteEndObject();
        json.WriteEndObject();
        json.WriteStartArray("tests");
        foreach (TestResult result in summary.Results)
            Test(json, result);
        json.WriteEndArray();
        json.WriteEndObject();
        json.Flush();
        stream.Write("\n"u8);
    }

    private static void Test(Utf8JsonWriter json, TestResult result)
    {
        json.WriteStartObject();
        Text(json, "name", result.Name);
        Text(json, "source", result.Source);
        json.WriteStartArray("tags");
        foreach (string tag in result.Tags)
            json.WriteStringValue(GuestText.Block(tag));
        json.WriteEndArray();
        json.WriteString("verdict", result.Verdict.Name());
        json.WriteNumber("exit_code", result.Verdict.ExitCode());
        json.WriteBoolean("flaky", result.IsFlaky);
        Text(json, "title", result.Title);
        Text(json, "message", result.Message);
        Text(json, "excerpt", result.Excerpt);
        Time(json, "started", result.Started);
        Seconds(json, "duration_seconds", result.Duration);
        json.WriteStartArray("attempts");
        foreach (AttemptResult attempt in result.Attempts)
        {
            json.WriteStartObject();
            json.WriteString("verdict", attempt.Verdict.Name());
            Text(json, "title", attempt.Title);
            Text(json, "message", attempt.Message);
            Seconds(json, "duration_seconds", attempt.Duration);
            json.WriteEndObject();
        }

        json.WriteEndArray();
        json.WriteStartArray("steps");
        foreach (StepResult step in result.Steps)
        {
            json.WriteStartObject();
            Text(json, "description", step.Description);
            json.WriteBoolean("done", step.Done);
            Seconds(json, "at_seconds", step.At);
            json.WriteEndObject();
        }

        json.WriteEndArray();
        json.WriteStartArray("answers");
        foreach (TriageAnswer answer in result.Answers)
        {
            json.WriteStartObject();
            Text(json, "command", answer.Command);
            Text(json, "text", answer.Text);
            json.WriteEndObject();
        }

        json.WriteEndArray();
        Text(json, "vcpus", result.Vcpus);
        Text(json, "console_log", result.ConsoleLog);
        Configuration(json, GuestText.Block(result.Configuration));
        Text(json, "repeat", result.Repeat);
        json.WriteEndObject();
    }

    /// <summary>As an object, not as a text that has one in it; what is no JSON is a string.</summary>
    private static void Configuration(Utf8JsonWriter json, string configuration)
    {
        try
        {
            using var document = JsonDocument.Parse(configuration);
            // Before anything is written: what is half written cannot be taken back.
            Check(document.RootElement);
            json.WritePropertyName("configuration");
            document.RootElement.WriteTo(json);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            json.WriteString("configuration", configuration);
        }
    }

    /// <summary>An escaped half of a surrogate pair parses, but cannot be written again.</summary>
    /// <exception cref="InvalidOperationException">There is one.</exception>
    private static void Check(JsonElement element)
    {
        switch (element.ValueKind)
        {
            case JsonValueKind.Object:
                foreach (JsonProperty property in element.EnumerateObject())
                {
                    _ = property.Name;
                    Check(property.Value);
                }

                break;
            case JsonValueKind.Array:
                foreach (JsonElement one in element.EnumerateArray())
                    Check(one);
                break;
            case JsonValueKind.String:
                _ = element.GetString();
                break;
        }
    }

    private static void Text(Utf8JsonWriter json, string name, string? text) => json.WriteString(name, text is null ? null : GuestText.Block(text));

    private static void Time(Utf8JsonWriter json, string name, DateTimeOffset time) =>
        json.WriteString(name, time.UtcDateTime.ToString("yyyy-MM-ddTHH:mm:ss.fffZ", CultureInfo.InvariantCulture));

    private static void Seconds(Utf8JsonWriter json, string name, TimeSpan time) => json.WriteNumber(name, Math.Round((decimal)time.TotalSeconds, 3));
}
