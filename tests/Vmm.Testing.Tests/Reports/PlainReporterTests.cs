using Vmm.Core;

namespace Vmm.Testing.Tests.Reports;

public sealed class PlainReporterTests
{
    [Fact]
    public void A_run_reads_like_this()
    {
        using var output = new StringWriter();
        var reporter = new PlainReporter(output);
        RunSummary summary = Samples.Summary(Samples.Passed("boots"), Samples.Flaky("net"), Samples.Panicked("unix", "logs/unix.console.log"));
        Samples.Play(reporter, summary);
        reporter.RunEnded(summary);
        Assert.Equal("""
            3 tests, 2 at once
            start boots
            pass  boots (4.25 s)
            start net
            retry net (attempt 1 came to hang: silent for 30 s, after 30.0 s)
            start net (attempt 2)
            pass  net (4.25 s, flaky: attempt 2)
            start unix
            retry unix (attempt 1 came to timeout: timeout: wait for /login: /, after 3.00 s)
            start unix (attempt 2)
            FAIL  unix (6.50 s): panic: KASAN: slab-use-after-free Read in unix_release
                  what: The guest's kernel panicked 3.2 s after its start, while waiting for /login: /.
                  | BUG: KASAN: slab-use-after-free in unix_release+0x12/0x40
                  | Kernel panic - not syncing: Fatal exception
                  console log: logs/unix.console.log
                  run it again: vmm test tests/boot.json --only 'unix'
            flaky: net: passed at attempt 2
            failed: unix: panic: KASAN: slab-use-after-free Read in unix_release
            3 tests in 65.0 s: 2 pass, 1 panic

            """, output.ToString());
    }

    [Fact]
    public void A_long_excerpt_is_cut_in_its_middle()
    {
        using var output = new StringWriter();
        string excerpt = string.Concat(Enumerable.Range(1, 1000).Select(i => $"line {i}\n"));
        new PlainReporter(output).TestEnded(Samples.Panicked("x", "x.log") with { Excerpt = excerpt });
        string[] lines = output.ToString().Split('\n');
        Assert.InRange(lines.Length, 80, 90);
        Assert.Contains("      | line 1", lines);
        Assert.Contains("      | [920 lines left out; the console log has them]", lines);
        Assert.Contains("      | line 1000", lines);
        Assert.DoesNotContain("      | line 500", lines);
    }

    [Fact]
    public void Whatever_a_guest_writes_each_test_has_one_line_and_nothing_drives_the_terminal() => Samples.ForAllRuns(summary =>
    {
        using var output = new StringWriter();
        var reporter = new PlainReporter(output);
        Samples.Play(reporter, summary);
        reporter.RunEnded(summary);
        string text = output.ToString();
        Assert.DoesNotContain(text, c => (char.IsControl(c) && c != '\n') || c is '\u2028' or '\u202E');
        Assert.DoesNotContain("##[", text, StringComparison.Ordinal);
        string[] lines = text.Split('\n');
        Assert.Equal(summary.Results.Count, lines.Count(line => line.StartsWith("pass  ", StringComparison.Ordinal) || line.StartsWith("FAIL  ", StringComparison.Ordinal)));
        Assert.DoesNotContain(lines, line => line.TrimStart().StartsWith("::", StringComparison.Ordinal));
        Assert.All(lines, line => Assert.True(line.Length < 2500 || line.StartsWith("      run it again: ", StringComparison.Ordinal) || line.StartsWith("      console log: ", StringComparison.Ordinal)));
    });

    [Fact]
    public void A_closed_output_is_said_at_the_end_and_not_before()
    {
        var output = new StreamWriter(new FileStream("/dev/full", FileMode.Open, FileAccess.Write, FileShare.ReadWrite, 0));
        var reporter = new PlainReporter(output);
        RunSummary summary = Samples.Summary(Samples.Passed("boots"));
        Samples.Play(reporter, summary);
        Assert.Contains("No space left", Assert.Throws<VmmException>(() => reporter.RunEnded(summary)).Message, StringComparison.Ordinal);
    }
}
