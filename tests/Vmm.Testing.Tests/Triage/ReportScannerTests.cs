using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Testing.Triage;

namespace Vmm.Testing.Tests.Triage;

/// <summary>Kernels' reports are found in consoles, cut out, and named.</summary>
public sealed partial class ReportScannerTests
{
    private static readonly Lazy<string[]> s_anyLines = new(() =>
        [.. GoldenConsole.All.SelectMany(console => Enum.GetValues<Prefix>().Where(prefix => console.IsLinux || prefix == Prefix.None).SelectMany(prefix => console.Print(prefix).Console))]);

    public static TheoryData<string, Prefix> Consoles
    {
        get
        {
            var data = new TheoryData<string, Prefix>();
            foreach (GoldenConsole console in GoldenConsole.All)
            {
                foreach (Prefix prefix in Enum.GetValues<Prefix>())
                {
                    if (console.IsLinux || prefix == Prefix.None)
                        data.Add(console.Name, prefix);
                }
            }

            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Consoles))]
    public void A_report_is_found_cut_out_and_named(string name, Prefix prefix)
    {
        (List<string> console, List<GuestReport> expected) = GoldenConsole.Get(name).Print(prefix);
        Assert.Equal(expected, GoldenConsole.Scan(console));
    }

    [Fact]
    public void All_kinds_are_there() =>
        Assert.Equal(Enum.GetValues<ReportKind>(), GoldenConsole.All.SelectMany(console => console.Reports).Select(report => report.Kind).Distinct().Order());

    /// <summary>One boot after the other, each with its reports.</summary>
    [Theory]
    [InlineData(Prefix.Time)]
    [InlineData(Prefix.Caller)]
    public void All_consoles_in_a_row_give_all_reports(Prefix prefix)
    {
        var console = new List<string>();
        var expected = new List<GuestReport>();
        foreach (GoldenConsole one in GoldenConsole.All.Where(one => one.IsLinux))
        {
            (List<string> lines, List<GuestReport> reports) = one.Print(prefix);
            console.Add("[    0.000000] Linux version 6.1.0-21-amd64 (debian-kernel@lists.debian.org)");
            console.AddRange(lines);
            expected.AddRange(reports);
        }

        Assert.Equal(expected, GoldenConsole.Scan(console));
    }

    [Theory]
    [InlineData("linux-6.1-boot.txt")]
    [InlineData("linux-6.12-boot.txt")]
    public void Nothing_is_found_in_a_healthy_boot(string file)
    {
        string[] lines = GoldenConsole.Resource(file).Split('\n');
        Assert.True(lines.Length > 300);
        Assert.Empty(GoldenConsole.Scan(lines));
    }

    [Theory]
    [InlineData("traps: test[312] general protection fault ip:55d0 sp:7ffc error:0 in test[55d0+1000]")]
    [InlineData("test[312]: segfault at 0 ip 000055d0 sp 00007ffc error 4 in test[55d0+1000] likely on CPU 1 (core 1, socket 0)")]
    [InlineData("INFO: lockdep is turned off.")]
    [InlineData("rcu: INFO: Stall ended before state dump start")]
    [InlineData("WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible via Spectre v2 BHB attacks!")]
    [InlineData("Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on")]
    [InlineData("perf: interrupt took too long (2505 > 2500), lowering kernel.perf_event_max_sample_rate to 79750")]
    [InlineData("Out of memory: Killed process 123 (test) total-vm:1234kB, anon-rss:12kB")]
    [InlineData("debian: BUG: unable to handle kernel paging request, says the page")]
    [InlineData("Starting kernel panic notifier")]
    [InlineData("rcu: Hierarchical RCU implementation.")]
    [InlineData("NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.")]
    [InlineData("OpenBSD 7.1 (GENERIC.MP) #465: Mon Apr 11 18:03:57 MDT 2022")]
    [InlineData("panic: runtime error: invalid memory address or nil pointer dereference")]
    public void Ordinary_lines_are_no_reports(string line) =>
        Assert.Empty(GoldenConsole.Scan([line, "[signal SIGSEGV: segmentation violation code=0x1]", "goroutine 1 [running]:", .. Enumerable.Repeat("so it goes", 200)]));

    [Fact]
    public void The_seed_has_a_report_of_witness_and_the_panic_that_follows()
    {
        string[] lines = GoldenConsole.Resource("openbsd-witness.txt").Split('\n');
        List<GuestReport> reports = GoldenConsole.Scan(lines);
        Assert.Equal([(ReportKind.Witness, "witness: userret: sendmsg"), (ReportKind.Panic, "panic: witness_warn")], reports.Select(report => (report.Kind, report.Title)));
        Assert.Equal(string.Concat(lines[..11].Select(line => line + "\n")), reports[0].Text);
        Assert.Equal("panic: witness_warn", lines[11]);
        Assert.StartsWith("ddb{0}> ", lines[31], StringComparison.Ordinal);
        Assert.Equal(string.Concat(lines[11..31].Select(line => line + "\n")), reports[1].Text);
    }

    [Fact]
    public void A_login_prompt_that_a_report_begins_behind_is_not_part_of_it()
    {
        GuestReport report = Assert.Single(GoldenConsole.Scan(["Debian GNU/Linux 12 debian ttyS0", "", "debian login: [   40.000001] Kernel panic - not syncing: sysrq triggered crash"]));
        Assert.Equal(new GuestReport(ReportKind.Panic, "kernel panic: sysrq triggered crash", "[   40.000001] Kernel panic - not syncing: sysrq triggered crash\n"), report);
        report = Assert.Single(GoldenConsole.Scan(["login: panic: timeout_add: to_ticks (-3) < 0", "Stopped at      db_enter+0x18:  addq    $0x8,%rsp"]));
        Assert.Equal("panic: timeout_add: to_ticks < NUM", report.Title);
        Assert.StartsWith("panic: ", report.Text, StringComparison.Ordinal);
    }

    [Fact]
    public void Reports_of_two_cpus_at_once_are_kept_apart_and_come_as_they_began()
    {
        string[] Warning(string caller, string function) =>
        [
            $"[   10.000000][{caller}] ------------[ cut here ]------------",
            $"[   10.000000][{caller}] WARNING: CPU: 0 PID: 5 at kernel/test.c:1 {function}+0x1/0x2",
            $"[   10.000000][{caller}] RIP: 0010:{function}+0x1/0x2",
            $"[   10.000000][{caller}] Call Trace:",
            $"[   10.000000][{caller}]  <TASK>",
            $"[   10.000000][{caller}]  kthread+0x1/0x2",
            $"[   10.000000][{caller}]  </TASK>",
            $"[   10.000000][{caller}] ---[ end trace 0000000000000000 ]---",
        ];
        string[] one = Warning("   T5", "one");
        string[] two = Warning("  T66", "two");
        foreach (int seed in Enumerable.Range(0, 200))
        {
            var random = new Random(seed);
            var mixed = new List<string>();
            for (int i = 0, j = 0; i < one.Length || j < two.Length;)
                mixed.Add(j == two.Length || (i < one.Length && random.Next(2) == 0) ? one[i++] : two[j++]);
            List<GuestReport> reports = GoldenConsole.Scan(mixed);
            Assert.Equal(mixed.FindIndex(line => line.Contains("one+0x1", StringComparison.Ordinal)) < mixed.FindIndex(line => line.Contains("two+0x1", StringComparison.Ordinal))
                ? ["WARNING in one", "WARNING in two"] : (string[])["WARNING in two", "WARNING in one"], reports.Select(report => report.Title));
            Assert.Equal(string.Concat(one.Select(line => line + "\n")), reports.Single(report => report.Title == "WARNING in one").Text);
        }
    }

    [Fact]
    public void A_warning_without_an_end_does_not_take_the_log_with_it()
    {
        (List<string> console, _) = GoldenConsole.Get("warning, 6.1").Print(Prefix.None);
        console.RemoveAll(line => line.Contains("end trace", StringComparison.Ordinal));
        console.AddRange(Enumerable.Range(0, 100).Select(i => $"ordinary {i}"));
        GuestReport report = Assert.Single(GoldenConsole.Scan(console));
        Assert.EndsWith(" </TASK>\n", report.Text, StringComparison.Ordinal);
    }

    [Fact]
    public void It_is_known_whether_more_is_to_come()
    {
        var scanner = new ReportScanner();
        (List<string> console, _) = GoldenConsole.Get("warning, 6.1").Print(Prefix.Time);
        int last = console.FindIndex(line => line.Contains("end trace", StringComparison.Ordinal));
        for (int i = 0; i < console.Count; i++)
        {
            scanner.Line(console[i]);
            Assert.Equal(i >= 2 && i < last, scanner.IsCollecting);
            Assert.Equal(i == last, scanner.TryTake(out _));
        }

        scanner.Line("[   20.000000] Kernel panic - not syncing: test");
        Assert.True(scanner.IsCollecting);
        Assert.False(scanner.TryTake(out _));
        scanner.End();
        Assert.True(scanner.TryTake(out GuestReport report));
        Assert.Equal("kernel panic: test", report.Title);
        Assert.False(scanner.IsCollecting);
    }

    /// <summary>What differs between two runs of one bug does not change its title, nor which lines belong to it.</summary>
    [Fact]
    public void Titles_do_not_depend_on_addresses_numbers_and_times()
    {
        int changed = 0;
        Prop.ForAll(Gen.Choose(0, int.MaxValue).ToArbitrary(), seed =>
        {
            var random = new Random(seed);
            GoldenConsole console = GoldenConsole.All[random.Next(GoldenConsole.All.Count)];
            Prefix prefix = console.IsLinux ? (Prefix)random.Next(5) : Prefix.None;
            (List<string> lines, List<GuestReport> expected) = console.Print(prefix);
            int seconds = random.Next(100, 99999);
            List<string> mutated = [.. lines.Select(line => Mutate(line.Replace("[   12.", $"[{seconds,5}.", StringComparison.Ordinal), random))];
            List<GuestReport> found = GoldenConsole.Scan(mutated);
            Assert.Equal(expected.Select(report => (report.Kind, report.Title)), found.Select(report => (report.Kind, report.Title)));
            Assert.Equal(expected.Select(report => report.Text.Count(c => c == '\n')), found.Select(report => report.Text.Count(c => c == '\n')));
            changed += lines.SequenceEqual(mutated) ? 0 : 1;
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(1000));
        Assert.InRange(changed, 900, 1000);
    }

    /// <summary>Parts of reports, in any order, cut and mixed with nonsense: nothing throws, and nothing is larger than it may be.</summary>
    [Fact]
    public void Nonsense_is_survived_within_bounds() =>
        Prop.ForAll(Gen.Choose(0, int.MaxValue).ToArbitrary(), seed =>
        {
            var random = new Random(seed);
            var scanner = new ReportScanner();
            var reports = new List<GuestReport>();
            for (int i = random.Next(3000); i >= 0; i--)
            {
                scanner.Line(Nonsense(random));
                if (random.Next(500) == 0)
                    scanner.End();
                while (random.Next(4) == 0 && scanner.TryTake(out GuestReport report))
                    reports.Add(report);
            }

            scanner.End();
            while (scanner.TryTake(out GuestReport report))
                reports.Add(report);
            Assert.All(reports, AssertBounded);
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(100));

    [Theory]
    [InlineData("[   10.000000] Kernel panic - not syncing: x", "[   10.000000]  f+0x1/0x2")]
    [InlineData("BUG: KASAN: slab-out-of-bounds in f+0x1/0x2", " ffff888000000000: 00 00 00")]
    [InlineData("WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2", " ? g+0x1/0x2")]
    [InlineData("INFO: task x:1 blocked for more than 1 seconds.", "task:y state:D")]
    [InlineData("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", "rcu: \t1-...0:")]
    [InlineData("Oops: 0000 [#1]", "RAX: 0000000000000000")]
    [InlineData("panic: x", "f(1) at f+0x1")]
    [InlineData("witness: x", "#1  f+0x1")]
    public void An_endless_report_ends(string first, string next)
    {
        foreach (string padding in (string[])["", new string('x', 100_000), string.Concat(Enumerable.Repeat("é€😀", 20_000))])
        {
            var scanner = new ReportScanner();
            scanner.Line(first);
            int lines = 0;
            for (; scanner.IsCollecting && lines < 10_000; lines++)
                scanner.Line(next + " " + padding);
            Assert.InRange(lines, 2, ReportCollectorLimits.Lines);
            Assert.True(scanner.TryTake(out GuestReport report));
            AssertBounded(report);
            // Full: by its lines, or by its bytes.
            Assert.True(padding.Length > 0 ? Encoding.UTF8.GetByteCount(report.Text) > ReportCollectorLimits.Bytes - (9 * 1024) : report.Text.Count(c => c == '\n') == ReportCollectorLimits.Lines);
        }
    }

    [Fact]
    public void Reports_that_nobody_takes_do_not_fill_the_memory()
    {
        var scanner = new ReportScanner();
        string long1 = new('a', 8000);
        for (int i = 0; i < 300; i++)
        {
            // By a writer of its own each: they are open side by side as far as that goes.
            scanner.Line($"[   10.000000][{"T" + i,6}] BUG: KASAN: out-of-bounds in f+0x1/0x2");
            for (int line = 0; line < 40; line++)
                scanner.Line($"[   10.000000][{"T" + i,6}]  f+0x{line:x}/0x2 {long1}");
        }

        // What waits is so many reports of a bounded length; what else the process has is not this test's.
        scanner.End();
        int reports = 0;
        while (scanner.TryTake(out GuestReport report))
        {
            AssertBounded(report);
            reports++;
        }

        Assert.Equal(ReportScanner.MaximumWaiting, reports);
    }

    /// <summary>What would make a search begin again at every line.</summary>
    [Theory]
    [InlineData("rcu: INFO: rcu_preempt self-detected stall on CPU", "rcu: apic_timer_interrupt RIP: 0010:")]
    [InlineData("WARNING: possible circular locking dependency detected", "is trying to acquire lock at: which became x at:")]
    [InlineData("BUG: Bad page state in process x", "page last allocated Call Trace: [<0>] [<0>] [<")]
    [InlineData("Oops: 0000 [#1]", "RIP: 0010:[<0>] [<0>] [<0>]")]
    [InlineData("panic: kqueue knote kernel diagnostic assertion failed: file", "witness: sys_sys_sys_ f(f(f( at at at")]
    public void Hostile_lines_take_no_longer_than_others(string first, string next)
    {
        string line = string.Concat(Enumerable.Repeat(next + " ", 8192 / next.Length));
        var watch = System.Diagnostics.Stopwatch.StartNew();
        foreach (string one in (string[])[line, next])
        {
            var scanner = new ReportScanner();
            scanner.Line(first + " " + (one == line ? line : ""));
            for (int i = 0; i < 5000; i++)
                scanner.Line(one);
            scanner.End();
            while (scanner.TryTake(out GuestReport report))
                AssertBounded(report);
        }

        // Half a second where nothing else runs; minutes if it were not linear.
        Assert.True(watch.Elapsed < TimeSpan.FromSeconds(30), $"{watch.Elapsed}");
    }

    private static void AssertBounded(GuestReport report)
    {
        Assert.InRange(Encoding.UTF8.GetByteCount(report.Text), 1, ReportCollectorLimits.Bytes);
        string[] lines = report.Text.Split('\n');
        Assert.Equal("", lines[^1]);
        Assert.InRange(lines.Length - 1, 1, ReportCollectorLimits.Lines);
        Assert.All(lines, line => Assert.InRange(Encoding.UTF8.GetByteCount(line), 0, 8 * 1024));
        Assert.InRange(report.Title.Length, 1, 120);
        Assert.DoesNotContain(report.Title, char.IsControl);
    }

    private static string Nonsense(Random random)
    {
        string line = s_anyLines.Value[random.Next(s_anyLines.Value.Length)];
        switch (random.Next(12))
        {
            case 0:
                return line[..random.Next(line.Length + 1)];
            case 1:
                return line[random.Next(line.Length + 1)..];
            case 2:
                return line + line;
            case 3:
                char[] characters = line.ToCharArray();
                for (int i = 0; i < characters.Length; i++)
                {
                    if (random.Next(10) == 0)
                        characters[i] = (char)random.Next(random.Next(2) == 0 ? 128 : 65536);
                }

                return new string(characters);
            case 4:
                return new string((char)random.Next(32, 127), random.Next(20_000));
            case 5:
                return "";
            default:
                return line;
        }
    }

    private static string Mutate(string line, Random random)
    {
        string Hex(int digits) => string.Concat(Enumerable.Range(0, digits).Select(_ => "0123456789abcdef"[random.Next(16)]));
        string Number(int below) => random.Next(2, below).ToString(CultureInfo.InvariantCulture);
        line = Offset().Replace(line, _ => $"+0x{Hex(3)}/0x{Hex(3)}");
        line = OpenBsdOffset().Replace(line, _ => $"+0x{Hex(3)}");
        line = Address().Replace(line, match => $"0x{Hex(match.Length - 2)}");
        line = Word().Replace(line, match => "ffff" + Hex(match.Length - 4));
        line = Pid().Replace(line, match => match.Value.EndsWith(" 1", StringComparison.Ordinal) ? match.Value : "PID: " + Number(99999));
        line = Task().Replace(line, match => $":{Number(99999)} blocked for more than {Number(999)} seconds");
        line = Place().Replace(line, match => $"{match.Groups[1].Value}:{Number(9999)}");
        line = Cpu().Replace(line, match => match.Groups[1].Value + Number(64));
        line = Stuck().Replace(line, _ => $"stuck for {Number(99)}s");
        return SlashPid().Replace(line, _ => "/" + Number(99999));
    }

    [GeneratedRegex("(?<=[a-z0-9_])\\+0x[0-9a-f]+/0x[0-9a-f]+")]
    private static partial Regex Offset();

    [GeneratedRegex("(?<=[a-z0-9_])\\+0x[0-9a-f]+(?![0-9a-f/])")]
    private static partial Regex OpenBsdOffset();

    [GeneratedRegex("(?<!\\+)(?<!/)\\b0x[0-9a-f]{2,}")]
    private static partial Regex Address();

    [GeneratedRegex("\\bffff[0-9a-f]{12}\\b")]
    private static partial Regex Word();

    [GeneratedRegex("PID: [0-9]+")]
    private static partial Regex Pid();

    [GeneratedRegex(":[0-9]+ blocked for more than [0-9]+ seconds")]
    private static partial Regex Task();

    [GeneratedRegex("(\\.[ch]):[0-9]+")]
    private static partial Regex Place();

    [GeneratedRegex("(CPU: |CPU#|CPU|cpu )[0-9]+")]
    private static partial Regex Cpu();

    [GeneratedRegex("stuck for [0-9]+s")]
    private static partial Regex Stuck();

    [GeneratedRegex("(?<=[a-z])/[0-9]{2,}\\b")]
    private static partial Regex SlashPid();

    /// <summary>What is promised, not what is built.</summary>
    private static class ReportCollectorLimits
    {
        public const int Bytes = 256 * 1024;
        public const int Lines = 4000;
    }
}
