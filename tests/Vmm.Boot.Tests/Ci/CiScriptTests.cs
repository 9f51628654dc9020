using System.Diagnostics;
using System.Security.Cryptography;

namespace Vmm.Boot.Tests.Ci;

/// <summary>What the scripts of ci/lib do with what they are given, with a program that stands for vmm.</summary>
public sealed class CiScriptTests
{
    private const string Recorder = "for word; do printf '%s\\n' \"$word\" >> arguments; done; exit ${FAKE_EXIT:-0}";

    [Fact]
    public async Task Options_reach_vmm_as_they_were_written()
    {
        using var ci = new CiScript();
        string vmm = ci.Program("fake vmm", Recorder);
        File.WriteAllText(ci["kernel image"], "");
        File.WriteAllText(ci["a 1.json"], "");
        File.WriteAllText(ci["a 2.json"], "");
        ci.Environment["VMM_KERNEL"] = "kernel image";
        ci.Environment["VMM_TESTS"] = "# a comment\n\n  a *.json\n";
        ci.Environment["VMM_ARGS"] = "  --expect   $(touch owned) `id` \"q\" 'x' \\n login: ?$ \n# --forbid no\n--list\n\n--cmdline\tconsole=ttyS0  quiet";
        ci.Environment["VMM_JOBS"] = "3";
        (int code, string output, string error) = await ci.Run("test.sh", vmm, "host");
        Assert.True(code == 0, error);
        Assert.Empty(output);
        Assert.Equal(
            ["test", "a 1.json", "a 2.json", "--kernel", "kernel image", "--expect", "$(touch owned) `id` \"q\" 'x' \\n login: ?$", "--list", "--cmdline", "console=ttyS0  quiet",
                "--jobs", "3", "--report", "dir=vmm-reports/logs,junit=vmm-reports/junit.xml,json=vmm-reports/results.json,github=off,progress=plain"],
            File.ReadAllLines(ci["arguments"]));
        Assert.False(File.Exists(ci["owned"]));
    }

    [Fact]
    public async Task The_exit_code_is_that_of_vmm_and_an_output_of_the_step()
    {
        using var ci = new CiScript();
        string vmm = ci.Program("vmm", Recorder);
        ci.Environment["VMM_KERNEL"] = vmm;
        ci.Environment["FAKE_EXIT"] = "14";
        ci.Environment["GITHUB_ACTIONS"] = "true";
        ci.Environment["GITHUB_OUTPUT"] = ci["outputs"];
        ci.Environment["VMM_JUNIT"] = "r/j.xml";
        Assert.Equal(14, (await ci.Run("test.sh", vmm, "host")).Code);
        Assert.Equal(["exit-code=14", "junit=r/j.xml", "json=vmm-reports/results.json", "logs=vmm-reports/logs"], File.ReadAllLines(ci["outputs"]));
        Assert.Contains("github=on", File.ReadAllText(ci["arguments"]), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("VMM_KERNEL", "nowhere", "there is no nowhere.")]
    [InlineData("VMM_TESTS", "nowhere/*.json", "there is no nowhere/*.json.")]
    [InlineData("VMM_ARGS", "login:", "'login:' is no option")]
    [InlineData("VMM_JUNIT", "a,dir=/", "'a,dir=/' is no path for a report")]
    [InlineData("VMM_LOGS", "a[0]", "'a[0]' is no path for a report")]
    [InlineData("VMM_JSON", "vmm-reports/junit.xml", "cannot both be vmm-reports/junit.xml")]
    [InlineData("VMM_JOBS", "", "there is nothing to test")]
    public async Task Wrong_use_is_said_and_nothing_is_run(string variable, string value, string said)
    {
        using var ci = new CiScript();
        string vmm = ci.Program("vmm", Recorder);
        if (variable != "VMM_JOBS")
            ci.Environment["VMM_KERNEL"] = vmm;
        ci.Environment[variable] = value;
        (int code, _, string error) = await ci.Run("test.sh", vmm, "host");
        Assert.Equal(2, code);
        Assert.Contains(said, error, StringComparison.Ordinal);
        Assert.False(File.Exists(ci["arguments"]));
    }

    [Fact]
    public async Task A_cancelled_job_tells_vmm_and_waits_for_it()
    {
        using var ci = new CiScript();
        string vmm = ci.Program("vmm", "trap 'sleep 0.5; echo reported > reports; exit 143' TERM; echo started; while :; do sleep 0.1; done");
        ci.Environment["VMM_KERNEL"] = vmm;
        using Process process = ci.Start("test.sh", vmm, "host");
        Assert.Equal("started", await process.StandardOutput.ReadLineAsync());
        using (Process kill = Process.Start("/bin/kill", ["-TERM", $"{process.Id}"]))
            await kill.WaitForExitAsync();
        (int code, _, string error) = await CiScript.End(process, TimeSpan.FromSeconds(30));
        Assert.True(code == 143, error);
        Assert.Equal("reported\n", File.ReadAllText(ci["reports"]));
    }

    [Theory]
    [InlineData(0, "auto", 0, "host\n")]
    [InlineData(1, "auto", 0, "sandbox\n")]
    [InlineData(0, "host", 0, "host\n")]
    [InlineData(1, "host", 1, "")]
    [InlineData(0, "sandbox", 0, "sandbox\n")]
    [InlineData(0, "else", 2, "")]
    public async Task Guests_boot_where_it_was_wanted_and_can_be(int check, string wanted, int exit, string answer)
    {
        using var ci = new CiScript();
        string vmm = ci.Program("vmm", $"[ \"$1\" = check ] && echo 'the reason' && exit {check}");
        ci.Environment["GITHUB_OUTPUT"] = ci["outputs"];
        (int code, string output, string error) = await ci.Run("kvm.sh", vmm, wanted);
        Assert.Equal((exit, answer), (code, output));
        Assert.Equal(answer.Length == 0 ? "" : $"where={answer}", File.Exists(ci["outputs"]) ? File.ReadAllText(ci["outputs"]) : "");
        if (check != 0)
            Assert.Contains("ci: | the reason\n", error, StringComparison.Ordinal);
    }

    [SkippableTheory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_device_that_the_user_may_not_open_is_opened_where_sudo_allows_it(bool allowed)
    {
        Skip.IfNot(Environment.UserName == "root" && File.Exists("/usr/bin/setpriv"), "only root becomes another user, by setpriv");
        using var ci = new CiScript();
        File.SetUnixFileMode(ci.Directory, (UnixFileMode)0b111_111_111);
        string device = ci["kvm"];
        File.WriteAllText(device, "");
        File.SetUnixFileMode(device, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        Directory.CreateDirectory(ci["rules.d"]);
        ci.Program("bin/udevadm", "exit 0");

        // Stands for sudo, which another user cannot have here: it says what it would do. The file of arguments is another user's to write.
        ci.Program("bin/sudo", $"{(allowed ? "" : "exit 1\n")}printf '%s\\n' \"$*\" >> '{ci["called"]}'; [ \"$2\" != tee ] || cat >> '{ci["rule"]}'");
        string vmm = ci.Program("vmm", "[ -r \"$VMM_KVM_DEVICE\" ]");
        using var process = Process.Start(new ProcessStartInfo("/usr/bin/setpriv",
            ["--reuid", "65534", "--clear-groups", "env", $"PATH={ci["bin"]}:/usr/bin:/bin", $"VMM_KVM_DEVICE={device}", $"VMM_UDEV_RULES={ci["rules.d"]}",
                "sh", Path.Combine(Vmm.Sandbox.SandboxImage.RepositoryDirectory, "ci/lib/kvm.sh"), vmm])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        (int code, string output, string error) = await CiScript.End(process, TimeSpan.FromSeconds(30));
        Assert.True(code == 0, error);
        Assert.Equal("sandbox\n", output);
        if (!allowed)
        {
            Assert.Contains("sudo is not to be had", error, StringComparison.Ordinal);
            return;
        }
        Assert.Equal(
            ["-n true", $"-n tee {ci["rules.d"]}/99-vmm-kvm.rules", "-n udevadm control --reload-rules", "-n udevadm trigger --name-match=kvm --settle", $"-n chmod 0666 {device}"],
            File.ReadAllLines(ci["called"]));
        Assert.Equal("KERNEL==\"kvm\", GROUP=\"kvm\", MODE=\"0666\", OPTIONS+=\"static_node=kvm\"\n", File.ReadAllText(ci["rule"]));
    }

    [Fact]
    public async Task A_binary_is_taken_from_a_path_or_fetched_from_a_url_and_its_sum_is_compared()
    {
        using var ci = new CiScript();
        string vmm = ci.Program("the vmm", "[ \"$1\" = version ] && echo 0.1.0");
        ci.Environment["GITHUB_OUTPUT"] = ci["outputs"];
        ci.Environment["RUNNER_TEMP"] = ci.Directory;
        ci.Environment["VMM_SHA256"] = Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(vmm)));
        (int code, string output, string error) = await ci.Run("vmm.sh", "the vmm");
        Assert.True(code == 0, error);
        Assert.Equal(vmm + "\n", output);
        Assert.Equal($"vmm={vmm}\n", File.ReadAllText(ci["outputs"]));

        (code, output, error) = await ci.Run("vmm.sh", "file://" + vmm.Replace(" ", "%20", StringComparison.Ordinal));
        Assert.True(code == 0, error);
        Assert.Equal(File.ReadAllText(vmm), File.ReadAllText(output.TrimEnd('\n')));

        ci.Environment["VMM_SHA256"] = new string('0', 64);
        (code, output, error) = await ci.Run("vmm.sh", vmm);
        Assert.Equal((1, ""), (code, output));
        Assert.Contains("does not have the SHA-256 sum", error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("nowhere/vmm", 2, "there is no vmm at nowhere/vmm")]
    [InlineData("file:///nowhere/vmm", 1, "cannot be fetched from file:///nowhere/vmm")]
    [InlineData("/bin/false", 1, "does not run here")]
    public async Task A_binary_that_is_not_there_or_none_is_said(string binary, int exit, string said)
    {
        using var ci = new CiScript();
        (int code, string output, string error) = await ci.Run("vmm.sh", binary);
        Assert.Equal((exit, ""), (code, output));
        Assert.Contains(said, error, StringComparison.Ordinal);
    }
}
