using System.Text.Json;

namespace Vmm.Testing.Tests.Reports;

public sealed class JsonReportTests
{
    [Fact]
    public void Everything_of_a_result_is_in_it()
    {
        JsonElement root = Report(Samples.Summary(Samples.Panicked("unix", "logs/unix.console.log"), Samples.Flaky("net")));
        Assert.Equal(1, root.GetProperty("format_version").GetInt32());
        JsonElement summary = root.GetProperty("summary");
        Assert.Equal("2026-11-21T12:00:00.000Z", summary.GetProperty("started").GetString());
        Assert.Equal(65, summary.GetProperty("duration_seconds").GetDecimal());
        Assert.Equal(Verdict.Panic.ExitCode(), summary.GetProperty("exit_code").GetInt32());
        Assert.Equal((2, 1, 1, 1), (Number(summary, "tests"), Number(summary, "passed"), Number(summary, "failed"), Number(summary, "flaky")));
        Assert.Equal(Verdicts.All.Select(one => one.Name), summary.GetProperty("verdicts").EnumerateObject().Select(one => one.Name));
        Assert.Equal((1, 1, 0), (Number(summary.GetProperty("verdicts"), "panic"), Number(summary.GetProperty("verdicts"), "pass"), Number(summary.GetProperty("verdicts"), "hang")));

        JsonElement test = root.GetProperty("tests")[0];
        Assert.Equal(
            ["name", "source", "tags", "verdict", "exit_code", "flaky", "title", "message", "excerpt", "started", "duration_seconds", "attempts", "steps", "answers", "vcpus", "console_log", "configuration", "repeat"],
            test.EnumerateObject().Select(one => one.Name));
        Assert.Equal(("unix", "tests/boot.json", "panic", 4, false), (Text(test, "name"), Text(test, "source"), Text(test, "verdict"), Number(test, "exit_code"), test.GetProperty("flaky").GetBoolean()));
        Assert.Equal(["smoke", "x86"], test.GetProperty("tags").EnumerateArray().Select(tag => tag.GetString()));
        Assert.Equal("BUG: KASAN: slab-use-after-free in unix_release+0x12/0x40\nKernel panic - not syncing: Fatal exception\n", Text(test, "excerpt"));
        Assert.Equal(["timeout", "panic"], test.GetProperty("attempts").EnumerateArray().Select(attempt => Text(attempt, "verdict")));
        JsonElement step = test.GetProperty("steps")[1];
        Assert.Equal(("wait for /login: /", false, 3.2m), (Text(step, "description"), step.GetProperty("done").GetBoolean(), step.GetProperty("at_seconds").GetDecimal()));
        Assert.Equal("bt", Text(test.GetProperty("answers")[0], "command"));
        Assert.Equal(("vcpu0 rip ffffffff81000000", "logs/unix.console.log"), (Text(test, "vcpus"), Text(test, "console_log")));
        Assert.Equal(1, test.GetProperty("configuration").GetProperty("cpus").GetProperty("boot").GetInt32());
        Assert.Equal(JsonValueKind.Null, root.GetProperty("tests")[1].GetProperty("console_log").ValueKind);
        Assert.True(root.GetProperty("tests")[1].GetProperty("flaky").GetBoolean());
    }

    [Theory]
    [InlineData("no JSON", JsonValueKind.String)]
    [InlineData("", JsonValueKind.String)]
    [InlineData("{\"a\":\"\\ud800\"}", JsonValueKind.String)]
    [InlineData("{\"\\udc00\":1}", JsonValueKind.String)]
    [InlineData("{\"a\":[\"\\ud83d\\ude42\"]}", JsonValueKind.Object)]
    public void A_configuration_that_is_no_json_is_a_string(string configuration, JsonValueKind kind) =>
        Assert.Equal(kind, Report(Samples.Summary(Samples.Passed("a") with { Configuration = configuration })).GetProperty("tests")[0].GetProperty("configuration").ValueKind);

    [Fact]
    public void Whatever_a_guest_writes_it_parses_and_has_each_test_once() => Samples.ForAllRuns(summary =>
    {
        JsonElement tests = Report(summary).GetProperty("tests");
        Assert.Equal(summary.Results.Count, tests.GetArrayLength());
        Assert.Equal(summary.Results.Select(result => result.Verdict.Name()), tests.EnumerateArray().Select(test => Text(test, "verdict")));
        foreach (JsonElement test in tests.EnumerateArray())
            ReadAll(test);
    });

    [Fact]
    public void The_example_in_the_documentation_is_what_is_written()
    {
        string page = File.ReadAllText(Path.Combine(Repository(), "docs", "testing-reports.md"));
        int start = page.IndexOf("```json\n", StringComparison.Ordinal) + "```json\n".Length;
        string example = page[start..page.IndexOf("```", start, StringComparison.Ordinal)];
        using var stream = new MemoryStream();
        JsonReport.Write(stream, Samples.Summary(Samples.Panicked("unix", "logs/unix.attempt-2.console.log")));
        Assert.Equal(example, System.Text.Encoding.UTF8.GetString(stream.ToArray()));
    }

    private static void ReadAll(JsonElement element)
    {
        if (element.ValueKind == JsonValueKind.String)
            _ = element.GetString();
        else if (element.ValueKind == JsonValueKind.Object)
            Assert.All(element.EnumerateObject(), property => ReadAll(property.Value));
        else if (element.ValueKind == JsonValueKind.Array)
            Assert.All(element.EnumerateArray(), ReadAll);
    }

    private static string Repository()
    {
        string? directory = AppContext.BaseDirectory;
        while (directory is not null && !File.Exists(Path.Combine(directory, "Vmm.sln")))
            directory = Path.GetDirectoryName(directory);
        return directory!;
    }

    private static string? Text(JsonElement element, string name) => element.GetProperty(name).GetString();

    private static int Number(JsonElement element, string name) => element.GetProperty(name).GetInt32();

    private static JsonElement Report(RunSummary summary)
    {
        using var stream = new MemoryStream();
        JsonReport.Write(stream, summary);
        return JsonDocument.Parse(stream.ToArray()).RootElement;
    }
}
