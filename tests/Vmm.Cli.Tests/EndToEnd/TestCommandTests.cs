using System.Text.Json;
using Vmm.Testing;
using Vmm.Tests.Payloads;

namespace Vmm.Cli.Tests.EndToEnd;

/// <summary><c>vmm test</c> as a CI job calls it, with small payloads; stock kernels are in the boot tests.</summary>
public sealed class TestCommandTests : IDisposable
{
    private readonly VmmProgram _vmm = new();

    public TestCommandTests() => NeedsKvm.Check();

    public void Dispose() => _vmm.Dispose();

    [SkippableFact]
    public void The_exit_code_is_the_verdicts()
    {
        string kernel = Kernel(a => { a.Print("hello\r\n"); a.PowerOff(); });
        Assert.Equal(0, _vmm.Run("test", "--kernel", kernel, "--expect", "hello", "--exit", "poweroff").Code);
        Outcome outcome = _vmm.Run("test", "--kernel", kernel, "--expect", "goodbye");
        Assert.Equal(Verdict.ExpectationNotMet.ExitCode(), outcome.Code);
        Assert.Contains("wait for /goodbye/", outcome.Output, StringComparison.Ordinal);
        Assert.Contains("| hello", outcome.Output, StringComparison.Ordinal);
        Assert.Equal("", outcome.Error);
    }

    [SkippableFact]
    public void A_file_of_tests_that_fail_in_different_ways()
    {
        string hello = Kernel(a => { a.Print("hello\r\n"); a.PowerOff(); });
        string panics = Kernel(a => { a.Out(0x505, 1); a.Hang(); });
        string file = _vmm.Make("tests.json", System.Text.Encoding.UTF8.GetBytes($$$"""
            {"defaults": {"timeout": "25s"}, "tests": [
              {"name": "passes", "tags": ["good"], "vm": {"payload": {"kernel": "{{{hello}}}"}}, "expect": "hello"},
              {"name": "panics", "vm": {"payload": {"kernel": "{{{panics}}}"}}, "expect": "hello"},
              {"name": "ends", "vm": {"payload": {"kernel": "{{{hello}}}"}}, "expect": "goodbye", "retries": 1}]}
            """));
        string reports = Path.Combine(_vmm.Folder, "out");
        Outcome outcome = _vmm.Run("test", file, "-j", "2", "--report", $"dir={reports},json={reports}/report.json,junit={reports}/junit.xml");
        Assert.Equal(Verdicts.DifferentFailures, outcome.Code);
        using JsonDocument json = JsonDocument.Parse(File.ReadAllText(Path.Combine(reports, "report.json")));
        JsonElement.ArrayEnumerator tests = json.RootElement.GetProperty("tests").EnumerateArray();
        Assert.Equal(["pass", "panic", "expectation-not-met"], tests.Select(test => test.GetProperty("verdict").GetString()));
        Assert.Equal([1, 1, 2], tests.Select(test => test.GetProperty("attempts").GetArrayLength()));
        Assert.Equal($"vmm test {file} --only ends", tests.Last().GetProperty("repeat").GetString());
        Assert.Contains("<testsuite", File.ReadAllText(Path.Combine(reports, "junit.xml")), StringComparison.Ordinal);

        // The command that repeats one test, and the configuration beside its log, do what they say.
        Assert.Equal(Verdict.Panic.ExitCode(), _vmm.Run("test", file, "--only", "panics").Code);
        string config = Directory.GetFiles(reports, "panics*.config.json").Single();
        Assert.Equal(ExitCodes.GuestPanic, _vmm.Run("run", "--config", config, "--on-panic", "exit").Code);
        Assert.Equal("passes  (good)\n", _vmm.Run("test", file, "--list", "--tag", "good").Output);
    }

    [SkippableFact]
    public void A_signal_ends_the_run_and_the_reports_are_written()
    {
        string report = Path.Combine(_vmm.Folder, "report.json");
        using RunningVmm vmm = _vmm.Start("test", "--kernel", Kernel(a => { a.Print("hello\r\n"); a.Hang(); }), "--expect", "goodbye", "--timeout", "100s", "--report", $"json={report}");
        vmm.ExpectOutput("start boot");
        vmm.Kill(15);
        Assert.Equal(143, vmm.WaitForEnd().Code);
        Assert.Contains("\"interrupted\"", File.ReadAllText(report), StringComparison.Ordinal);
    }

    [SkippableTheory]
    [InlineData("--expect", "(", "regular expression")]
    [InlineData("--step", "wiat=x", "wait")]
    [InlineData("--timeout", "soon", "60s")]
    [InlineData("--exit", "halt", "poweroff")]
    [InlineData("--fail-on", "[all]", "oops")]
    [InlineData("--report", "junt=x", "junit")]
    [InlineData("--report", "progress=fast", "plain")]
    [InlineData("--jobs", "many", "whole number")]
    [InlineData("--matrix", "kernl=[a]", "kernel")]
    [InlineData("--nmi-on-hang", "maybe", "neither on nor off")]
    [InlineData("--symbols", "/nowhere", "/nowhere")]
    public void Bad_arguments_are_2_and_one_line(string option, string value, string part) =>
        _vmm.Run("test", "--kernel", Kernel(a => a.PowerOff()), option, value).IsOneLine(ExitCodes.BadArguments, part);

    private string Kernel(Action<Iced.Intel.Assembler> build) => _vmm.Make($"kernel-{Guid.NewGuid():n}", GuestProgram.Elf(build));
}
