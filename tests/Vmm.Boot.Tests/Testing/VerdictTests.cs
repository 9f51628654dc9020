using System.Text.Json;
using System.Xml.Linq;
using Vmm.Sandbox;
using Vmm.Testing;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests.Testing;

/// <summary>Each verdict of <c>vmm test</c>, produced by a stock kernel: exit code, JUnit entry, title and excerpt.</summary>
[Collection(BootCollection.Name)]
public sealed class VerdictTests(BootHost host, ITestOutputHelper log) : IAsyncLifetime
{
    private const string Image = "debian-12-crash";
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(6);

    public async Task InitializeAsync()
    {
        if (host.CanBoot)
            await host.AddImage(Image);
    }

    public Task DisposeAsync() => Task.CompletedTask;

    [SkippableFact]
    public Task The_right_text() => Expect(Verdict.Pass, "", "vmm.end=hang", "--expect", "VMM-GUEST cpus=1", "--forbid", "Kernel panic", "--expect", "hanging");

    [SkippableFact]
    public Task The_right_end() => Expect(Verdict.Pass, "", "vmm.end=poweroff", "--exit", "poweroff", "--expect", "VMM-GUEST cpus=1");

    [SkippableFact]
    public async Task A_conversation()
    {
        // The shell's echo shows what was typed too, so the answer is one that was not.
        await Expect(Verdict.Pass, "", "vmm.end=shell", "--step", "wait=# $", "--step", "send=echo $((6 * 7))\\n", "--step", "wait=^42$", "--step", "send=poweroff -f\\n", "--exit", "poweroff");
    }

    [SkippableFact]
    public async Task The_wrong_text()
    {
        Report report = await Expect(Verdict.ExpectationNotMet, "wait for /goodbye/", "vmm.end=poweroff", "--expect", "VMM-GUEST cpus", "--expect", "goodbye");
        Assert.Contains("reboot: Power down", report.Excerpt, StringComparison.Ordinal);
        Assert.Contains("powered off before step 2", report.Message, StringComparison.Ordinal);
    }

    [SkippableFact]
    public Task Forbidden_text() => Expect(Verdict.ForbiddenText, "forbidden /cpus=1/", "vmm.end=hang", "--forbid", "cpus=1", "--expect", "never");

    [SkippableTheory]
    [InlineData("")]
    [InlineData("rmmod pvpanic-mmio pvpanic-pci; ")]
    public async Task A_panicking_kernel(string before)
    {
        // Once where the kernel tells the VMM too, once where only its console does.
        Report report = await Expect(Verdict.Panic, "kernel panic: sysrq triggered crash", Run(before + "echo c > /proc/sysrq-trigger"), "--expect", "never");
        Assert.Contains("Kernel panic - not syncing: sysrq triggered crash", report.Excerpt, StringComparison.Ordinal);
        Assert.Contains("rip ", report.Vcpus, StringComparison.Ordinal);
    }

    [SkippableFact]
    public async Task A_panicking_init()
    {
        Report report = await Expect(Verdict.Panic, "kernel panic: Attempted to kill init!", "rdinit=/bin/false", "--expect", "never");
        Assert.Contains("exitcode=0x00000100", report.Excerpt, StringComparison.Ordinal);
    }

    [SkippableFact]
    public async Task An_init_that_eats_all_memory()
    {
        Report report = await Expect(
            Verdict.Panic, "kernel panic: System is deadlocked on memory", "rdinit=/bin/sh -- -c \"a=x; while :; do a=$a$a$a$a; done\"", "--expect", "never", "--timeout", "200s");
        Assert.Contains("Out of memory", report.Excerpt + report.Console, StringComparison.Ordinal);
    }

    [SkippableFact]
    public async Task An_oops()
    {
        Report report = await Expect(Verdict.Oops, "BUG: unable to handle kernel NULL pointer dereference in vmm_crash_oops", Run("insmod /vmm-crash.ko what=oops"), "--expect", "never");
        Assert.Contains("RIP: 0010:vmm_crash_oops", report.Excerpt, StringComparison.Ordinal);
        Assert.DoesNotContain("VMM-GUEST", report.Excerpt, StringComparison.Ordinal);
    }

    [SkippableFact]
    public Task A_bug() => Expect(Verdict.Oops, "kernel BUG in vmm_crash_bug", Run("insmod /vmm-crash.ko what=bug"), "--expect", "never");

    [SkippableFact]
    public async Task A_warning_where_it_is_forbidden()
    {
        Report report = await Expect(Verdict.Warning, "WARNING in vmm_crash_warn", Run("insmod /vmm-crash.ko what=warn"), "--fail-on", "[oops,warning]", "--ignore", "fpu__init_system_xstate", "--expect", "never");
        Assert.Contains("a warning that was asked for", report.Excerpt, StringComparison.Ordinal);
    }

    [SkippableFact]
    public Task A_warning_where_it_is_not() => Expect(Verdict.Pass, "", Run("insmod /vmm-crash.ko what=warn"), "--exit", "poweroff", "--expect", "a warning that was asked for");

    [SkippableFact]
    public async Task A_loop_with_interrupts_off()
    {
        Report report = await Expect(Verdict.Hang, "no output", Run("insmod /vmm-crash.ko what=spin"), "--hang", "15s", "--expect", "never");
        // Its own answer to the NMI, and where the VMM saw it stand.
        Assert.Contains("vmm_crash_spin", report.Excerpt, StringComparison.Ordinal);
        Assert.Contains("NMI", report.Excerpt, StringComparison.Ordinal);
        Assert.Contains("jmp", report.Vcpus, StringComparison.Ordinal);
    }

    [SkippableFact]
    public async Task A_silent_halt()
    {
        Report report = await Expect(Verdict.Hang, "no output", Run("insmod /vmm-crash.ko what=halt"), "--hang", "15s", "--expect", "never");
        Assert.Contains("vmm_crash_halt", report.Excerpt, StringComparison.Ordinal);
    }

    [SkippableFact]
    public Task A_slow_boot() => Expect(Verdict.Timeout, "timeout in step 1, wait for /VMM-GUEST/", "rdinit=/bin/sh -- -c \"while :; do echo tick; sleep 0.1; done\"", "--timeout", "5s", "--expect", "VMM-GUEST");

    [SkippableFact]
    public Task A_step_that_takes_too_long() =>
        Expect(Verdict.Timeout, "timeout in step 2, wait for /never/", Run("while :; do echo tick; sleep 0.1; done"), "--step", "wait=tick", "--step", "wait=never,timeout=3s");

    [SkippableFact]
    public Task A_reboot_loop() => Expect(Verdict.RebootLoop, "reboot loop", "vmm.end=reboot", "--max-reboots", "2", "--expect", "never", "--timeout", "240s");

    [SkippableFact]
    public Task A_reboot_on_the_way() => Expect(Verdict.Pass, "", "vmm.end=reboot", "--max-reboots", "2", "--expect", "VMM-GUEST", "--expect", "VMM-GUEST", "--timeout", "240s");

    [SkippableFact]
    public async Task A_triple_fault()
    {
        Report report = await Expect(Verdict.TripleFault, "triple fault", "vmm.end=triplefault", "--expect", "never");
        Assert.Contains("rip ", report.Vcpus, StringComparison.Ordinal);
    }

    [SkippableTheory]
    [InlineData("insmod /vmm-crash.ko what=exit code=7")]
    [InlineData("echo VMM-EXIT=7; poweroff -f")]
    public Task A_code_of_the_guests_own(string hand) => Expect(Verdict.GuestFailure, "guest code 7", Run(hand), "--expect", "never");

    [SkippableFact]
    public Task A_code_that_says_that_all_is_well() => Expect(Verdict.Pass, "", Run("insmod /vmm-crash.ko what=exit code=0"), "--code", "0", "--expect", "VMM-GUEST");

    [SkippableFact]
    public async Task A_kernel_that_KVM_cannot_go_on_with()
    {
        host.Require();
        string kernel = $"{host.Scratch}/nowhere";
        await host.Shell("mkdir -p " + host.Scratch);
        byte[] elf = Vmm.Tests.Payloads.GuestProgram.Elf(a => { a.mov(Iced.Intel.AssemblerRegisters.rax, 0xD000_0000UL); a.jmp(Iced.Intel.AssemblerRegisters.rax); });
        await host.Shell($"echo {Convert.ToBase64String(elf)} | base64 -d > {kernel}");
        CommandResult result = await host.RunVmm(["test", "--kernel", kernel, "--expect", "never"], s_limit);
        log.WriteLine(result.Output + result.Error);
        Assert.Contains(result.ExitCode, new[] { Verdict.KvmError.ExitCode(), Verdict.TripleFault.ExitCode() });
        Assert.True(!host.InSandbox || result.ExitCode == Verdict.KvmError.ExitCode(), $"exit code {result.ExitCode}");
    }

    [SkippableFact]
    public async Task A_host_that_has_not_what_is_asked_for()
    {
        host.Require();
        CommandResult result = await host.RunVmm([.. Arguments("", "missing"), "--disk", "path=/nowhere"], s_limit);
        log.WriteLine(result.Output + result.Error);
        Assert.Equal(Verdict.VmmError.ExitCode(), result.ExitCode);
        Assert.Contains("/nowhere", result.Output, StringComparison.Ordinal);
    }

    /// <summary>
    /// Many boots by one vmm, two at a time: none hears another, and between the first ones and the last ones no descriptor, thread or mapping of a guest's
    /// memory has been left. VMM_TEST_BOOTS says how many, 6 unless it does.
    /// </summary>
    [SkippableFact]
    public async Task Many_boots_two_at_a_time()
    {
        host.Require();
        int boots = int.TryParse(Environment.GetEnvironmentVariable("VMM_TEST_BOOTS"), out int asked) ? asked : 6;
        string name = $"boots-{Guid.NewGuid():n}";
        var tests = new System.Text.StringBuilder("[");
        for (int i = 0; i < boots; i++)
        {
            tests.Append(i == 0 ? "" : ",").Append(
                $$"""{"name":"boot-{{i}}","vm":{"payload":{"kernel":"{{host.Image(Image, "vmlinuz")}}","initramfs":"{{host.Image(Image, "initramfs.cpio.gz")}}","cmdline":"console=ttyS0 quiet vmm.token=t{{i}}. vmm.end=poweroff"},"memory":"size=128M"},"timeout":"300s","expect":"vmm.token=t{{i}}[.]","forbid":"vmm.token=t(?!{{i}}[.])","exit":"poweroff"}""");
        }
        string base64 = Convert.ToBase64String(System.Text.Encoding.UTF8.GetBytes(tests.Append(']').ToString()));
        // Two are running whenever one has just ended, but for the last.
        string script = $$"""
            cd {{host.Scratch}}; echo {{base64}} | base64 -d > {{name}}.json
            {{host.Command(["test", $"{name}.json", "-j", "2"])}} > {{name}}.out 2>&1 & pid=$!
            ended() { grep -cE '^(pass|FAIL) ' {{name}}.out; }
            count() { echo "COUNT $1 $(ls /proc/$pid/fd | wc -l) $(ls /proc/$pid/task | wc -l) $(grep -c kvm-vcpu /proc/$pid/maps)"; }
            until [ "$(ended)" -ge 3 ] || ! kill -0 $pid; do sleep 0.1; done; count first
            until [ "$(ended)" -ge {{boots - 2}} ] || ! kill -0 $pid; do sleep 0.1; done; count last
            wait $pid; code=$?; cat {{name}}.out; exit $code
            """;
        CommandResult result = await host.Shell(script, TimeSpan.FromSeconds(60 + (60 * boots)));
        log.WriteLine(result.Output + result.Error);
        Assert.Equal(0, result.ExitCode);
        Assert.Contains($"{boots} pass", result.Output, StringComparison.Ordinal);
        int[][] counts = [.. result.Output.Split('\n').Where(line => line.StartsWith("COUNT ", StringComparison.Ordinal)).Select(line => line.Split(' ')[2..].Select(int.Parse).ToArray())];
        // One machine is being made or taken apart while it is counted: that much is no leak, and a leak of each would be more.
        Assert.InRange(counts[1][0] - counts[0][0], -40, 40);
        Assert.InRange(counts[1][1] - counts[0][1], -15, 15);
        Assert.InRange(counts[1][2], 0, 2);
    }

    // The image's init runs it, and powers off where it comes to an end.
    private static string Run(string command) => $"vmm.run64={Convert.ToBase64String(System.Text.Encoding.UTF8.GetBytes(command))}";

    // Without the log of an ordinary boot, which is most of its time here; warnings and what crashes print are not ordinary.
    private List<string> Arguments(string commandLine, string name) =>
    [
        "test", "--kernel", host.Image(Image, "vmlinuz"), "--initramfs", host.Image(Image, "initramfs.cpio.gz"), "--cmdline", $"console=ttyS0 loglevel=5 {commandLine}",
        "--memory", "size=128M", "--timeout", "120s", "--report", $"dir={host.Scratch}/{name},junit={host.Scratch}/{name}/junit.xml,json={host.Scratch}/{name}/report.json",
    ];

    /// <summary>Runs one test, and checks everything that tells its verdict.</summary>
    private async Task<Report> Expect(Verdict verdict, string title, string commandLine, params string[] arguments)
    {
        host.Require();
        string name = $"verdict-{Guid.NewGuid():n}";
        List<string> all = Arguments(commandLine, name);
        foreach (string argument in arguments)
        {
            // What is said again is said in place of the default.
            if (argument == "--timeout")
                all.RemoveRange(all.IndexOf("--timeout"), 2);
        }
        all.AddRange(arguments);
        // One that does not end says where its threads are.
        CommandResult result = await host.Shell(
            $"{host.Command(all)} </dev/null & pid=$!; (sleep 300; for task in /proc/$pid/task/*; do echo \"$(cat $task/comm): $(cat $task/wchan) $(cat $task/syscall)\"; cat $task/stack; done; kill -9 $pid) & watcher=$!; wait $pid; code=$?; kill $watcher; exit $code", s_limit);
        log.WriteLine(result.Output + result.Error);
        Assert.False(result.TimedOut || result.ExitCode == 137, "the test did not end");
        Assert.Equal(verdict.ExitCode(), result.ExitCode);
        string junit = (await host.Shell($"cat {host.Scratch}/{name}/junit.xml")).Output;
        XElement test = XDocument.Parse(junit).Descendants("testcase").Single();
        XElement? failure = test.Element("failure") ?? test.Element("error");
        Assert.Equal(verdict == Verdict.Pass, failure == null);
        using JsonDocument json = JsonDocument.Parse((await host.Shell($"cat {host.Scratch}/{name}/report.json")).Output);
        JsonElement entry = json.RootElement.GetProperty("tests")[0];
        Assert.Equal(verdict.Name(), entry.GetProperty("verdict").GetString());
        Assert.Equal(title, entry.GetProperty("title").GetString());
        string console = (await host.Shell($"cat {host.Scratch}/{name}/*.console.log")).Output;
        if (failure != null)
        {
            Assert.Equal(verdict.Name(), failure.Attribute("type")?.Value);
            Assert.Contains(title, failure.Attribute("message")?.Value, StringComparison.Ordinal);
        }
        // The command that repeats it, without its reports, does: it is the one that was given.
        Assert.Contains("vmm test --kernel", entry.GetProperty("repeat").GetString(), StringComparison.Ordinal);
        return new Report(
            entry.GetProperty("message").GetString()!, entry.GetProperty("excerpt").GetString()!,
            entry.TryGetProperty("vcpus", out JsonElement vcpus) && vcpus.ValueKind == JsonValueKind.String ? vcpus.GetString()! : "", console);
    }

    private sealed record Report(string Message, string Excerpt, string Vcpus, string Console);
}
