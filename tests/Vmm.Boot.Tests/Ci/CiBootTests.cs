using System.Text.Json;
using System.Xml.Linq;
using Vmm.Sandbox;

namespace Vmm.Boot.Tests.Ci;

/// <summary>The steps of a pipeline with the vmm binary and a guest: on this host's KVM where it can, in the sandbox where not.</summary>
public sealed class CiBootTests : IAsyncLifetime, IDisposable
{
    private const string Image = "debian-12";

    private readonly CiScript _ci = new();
    private string _vmm = "";
    private string _where = "";

    public async Task InitializeAsync()
    {
        string vmm = Environment.GetEnvironmentVariable("VMM_BINARY") ?? Path.Combine(SandboxImage.RepositoryDirectory, "artifacts/vmm/vmm");
        if (!File.Exists(vmm))
            return;
        string image = await SandboxImage.BuildGuestAsync(Image);
        File.CreateSymbolicLink(_ci["bzImage"], Path.Combine(image, "vmlinuz"));
        File.CreateSymbolicLink(_ci["initramfs.cpio.gz"], Path.Combine(image, "initramfs.cpio.gz"));

        // The tests' own copy of the sandbox: nothing is built while they run.
        _ci.Environment["VMM_SANDBOX"] = Path.Combine(AppContext.BaseDirectory, "Vmm.Sandbox");
        _ci.Environment["VMM_KERNEL"] = "bzImage";
        _ci.Environment["VMM_INITRAMFS"] = "initramfs.cpio.gz";
        (int code, string output, string error) = await _ci.Run("vmm.sh", vmm);
        Assert.True(code == 0, error);
        _vmm = output.TrimEnd('\n');
        (code, output, error) = await _ci.Run("kvm.sh", _vmm);
        Assert.True(code == 0, error);
        _where = output.TrimEnd('\n');
    }

    public Task DisposeAsync() => Task.CompletedTask;

    public void Dispose() => _ci.Dispose();

    [SkippableFact]
    public async Task A_guest_that_does_what_it_should_passes()
    {
        Require();
        _ci.Environment["VMM_ARGS"] = """
            --cmdline console=ttyS0 quiet vmm.run64=ZWNobyBhbGwgaXMgd2VsbA== vmm.end=poweroff
            --expect ^VMM-GUEST cpus=1
            --expect all is well
            --timeout 900s
            """;
        _ci.Environment["GITHUB_ACTIONS"] = "true";
        _ci.Environment["GITHUB_STEP_SUMMARY"] = _ci["summary.md"];
        File.WriteAllText(_ci["summary.md"], "before\n");
        (int code, string output, string error) = await _ci.Run("test.sh", _vmm, _where);
        Assert.True(code == 0, output + error);
        Assert.Contains("1 pass", output, StringComparison.Ordinal);
        Assert.Contains("\n::notice title=vmm test::1 test in ", output, StringComparison.Ordinal);
        string summary = File.ReadAllText(_ci["summary.md"]);
        Assert.StartsWith("before\n### vmm test: 1 pass\n", summary, StringComparison.Ordinal);
        Assert.Equal("1", XDocument.Load(_ci["vmm-reports/junit.xml"]).Root!.Attribute("tests")!.Value);
        Assert.Equal(0, Json().GetProperty("summary").GetProperty("exit_code").GetInt32());
        Assert.Contains("all is well\n", Log(Json().GetProperty("tests")[0]), StringComparison.Ordinal);
    }

    [SkippableFact]
    public async Task Failures_of_a_test_file_are_in_every_report_and_in_the_exit_code()
    {
        Require();
        Directory.CreateDirectory(_ci["boot tests"]);
        File.WriteAllText(_ci["boot tests/all.json"], """
            {
              "defaults": { "timeout": "900s" },
              "tests": [
                { "name": "ends/well", "vm": { "payload": { "cmdline": "console=ttyS0 quiet vmm.run=true vmm.end=poweroff" } }, "expect": ["VMM-GUEST exit=0"] },
                { "name": "panics", "vm": { "payload": { "cmdline": "console=ttyS0 quiet panic=-1 vmm.run=true vmm.end=panic" } }, "expect": ["what never comes"] }
              ]
            }
            """);
        _ci.Environment["VMM_TESTS"] = "boot tests/*.json";
        _ci.Environment["VMM_GITHUB"] = "on";
        _ci.Environment["VMM_JUNIT"] = "out/junit/boot.xml";
        _ci.Environment["VMM_LOGS"] = _ci["out/logs"];
        (int code, string output, string error) = await _ci.Run("test.sh", _vmm, _where);
        Assert.True(code == 4, output + error);
        Assert.Contains("\n::error title=panics%3A panic", output, StringComparison.Ordinal);
        Assert.Contains(",file=boot tests/all.json::", output, StringComparison.Ordinal);
        XElement[] tests = [.. XDocument.Load(_ci["out/junit/boot.xml"]).Descendants("testcase")];
        Assert.Equal(["ends/well", "panics"], tests.Select(test => test.Attribute("name")!.Value));
        Assert.Empty(tests[0].Elements("failure"));
        Assert.Equal("panic", tests[1].Element("failure")!.Attribute("type")!.Value);
        Assert.Contains("Kernel panic - not syncing", tests[1].Element("failure")!.Value, StringComparison.Ordinal);
        Assert.Equal(["pass", "panic"], Json().GetProperty("tests").EnumerateArray().Select(test => test.GetProperty("verdict").GetString()));
        Assert.Contains("VMM-GUEST exit=0\n", Log(Json().GetProperty("tests")[0]), StringComparison.Ordinal);
        Assert.Contains("Kernel panic - not syncing", Log(Json().GetProperty("tests")[1]), StringComparison.Ordinal);
    }

    [SkippableFact]
    public async Task Wrong_options_are_the_exit_code_of_vmm_and_no_reports_are_no_other_error()
    {
        Require();
        _ci.Environment["VMM_ARGS"] = "--expact login:";
        (int code, _, string error) = await _ci.Run("test.sh", _vmm, _where);
        Assert.True(code == 2, error);
        Assert.Contains("--expact", error, StringComparison.Ordinal);
        Assert.False(File.Exists(_ci["vmm-reports/junit.xml"]));
    }

    [SkippableFact]
    public async Task A_pipelines_variables_are_no_configuration_of_vmm()
    {
        Require();
        foreach (string name in new[] { "SOURCE", "REPOSITORY", "REF", "BINARY", "SHA256", "KVM", "FILES", "JUNIT", "JSON", "LOGS" })
            _ci.Environment["VMM_" + name] = "word";
        _ci.Environment["VMM_JSON"] = "word.json";
        _ci.Environment["VMM_ARGS"] = "--list";

        // It needs no KVM, so it can be tried here whatever this host's can do.
        (int code, string output, string error) = await _ci.Run("test.sh", _vmm, "host");
        Assert.True(code == 0, error);
        Assert.Equal("boot\n", output);
    }

    private void Require()
    {
        if (_vmm.Length > 0)
            return;
        Assert.False(Environment.GetEnvironmentVariable("VMM_REQUIRE_BOOT") == "1", "There is no vmm binary; scripts/build makes it.");
        Skip.If(true, "there is no vmm binary; scripts/build makes it");
    }

    private JsonElement Json() => JsonDocument.Parse(File.ReadAllBytes(_ci["vmm-reports/results.json"])).RootElement;

    private string Log(JsonElement test) => File.ReadAllText(Path.Combine(_ci.Directory, test.GetProperty("console_log").GetString()!));
}
