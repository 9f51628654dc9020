using System.Text;
using System.Text.RegularExpressions;
using Vmm.Core;

namespace Vmm.Testing.Tests.Reports;

public sealed partial class GithubAnnotationsTests
{
    private sealed record Command(string Name, Dictionary<string, string> Properties, string Data);

    [Fact]
    public void A_failure_and_a_flaky_test_are_annotations_and_the_sum_is_a_notice()
    {
        (List<Command> commands, List<string> others) = Run(Samples.Summary(Samples.Passed("ok"), Samples.Flaky("net"), Samples.Panicked("unix[cpus=2,kernel=a:b]", "u.log")));
        Assert.Equal(["warning", "error", "group", "endgroup", "notice"], commands.Select(command => command.Name));
        Assert.Equal("It passed at attempt 2; attempt 1 came to hang: silent for 30 s.", commands[0].Data);
        Assert.Equal("unix[cpus=2,kernel=a:b]: panic: KASAN: slab-use-after-free Read in unix_release", commands[1].Properties["title"]);
        Assert.Equal("tests/boot.json", commands[1].Properties["file"]);
        Assert.Equal("The guest's kernel panicked 3.2 s after its start, while waiting for /login: /.\nconsole log: u.log\n"
            + "run it again: vmm test tests/boot.json --only 'unix[cpus=2,kernel=a:b]'", commands[1].Data);
        Assert.Equal(["| BUG: KASAN: slab-use-after-free in unix_release+0x12/0x40", "| Kernel panic - not syncing: Fatal exception"], others);
        Assert.Equal("3 tests in 65.0 s: 2 pass, 1 panic", commands[^1].Data);
    }

    [Fact]
    public void Twelve_failures_are_ten_annotations_and_a_word_about_the_others()
    {
        TestResult[] results = [.. Enumerable.Range(0, 12).Select(i => Samples.Panicked($"t{i}") with { Source = "command line" })];
        (List<Command> commands, _) = Run(Samples.Summary(results));
        Assert.Equal(10, commands.Count(command => command.Name == "error"));
        Assert.All(commands, command => Assert.DoesNotContain("file", command.Properties.Keys));
        Assert.Equal(12, commands.Count(command => command.Name == "group"));
        Assert.EndsWith("; 2 more failed than have an annotation", commands[^1].Data, StringComparison.Ordinal);
    }

    [Fact]
    public void The_summary_page_is_appended_and_shows_failures_first()
    {
        using var directory = new TemporaryDirectory();
        string page = directory["summary.md"];
        File.WriteAllText(page, "before\n");
        RunSummary summary = Samples.Summary(Samples.Passed("ok"), Samples.Flaky("net"), Samples.Panicked("unix|[x](y)") with { Excerpt = "</pre><script>\n\n# no heading" });
        var reporter = new GithubAnnotations(TextWriter.Null, page);
        Samples.Play(reporter, summary);
        reporter.RunEnded(summary);
        Assert.Equal("""
            before
            ### vmm test: 2 pass, 1 panic

            | test | verdict | time | what |
            | --- | --- | ---: | --- |
            | unix&#124;\[x\]\(y\) | panic | 6.50 s | KASAN&#58; slab\-use\-after\-free Read in unix\_release |
            | net | pass, flaky | 4.25 s | It passed at attempt 2\; attempt 1 came to hang&#58; silent for 30 s\. |
            | ok | pass | 4.25 s |  |

            <details><summary>unix|[x](y): panic: KASAN: slab-use-after-free Read in unix_release</summary>

            <pre>The guest's kernel panicked 3.2 s after its start, while waiting for /login: /.
            &lt;/pre&gt;&lt;script&gt;

            # no heading

            run it again: vmm test tests/boot.json --only 'unix|[x](y)'</pre>

            </details>


            """, File.ReadAllText(page));
    }

    [Fact]
    public void A_summary_page_that_cannot_be_written_is_an_error_after_the_annotations()
    {
        using var output = new StringWriter();
        var reporter = new GithubAnnotations(output, "/nowhere/at/all/summary.md");
        Assert.Contains("GITHUB_STEP_SUMMARY", Assert.Throws<VmmException>(() => reporter.RunEnded(Samples.Summary(Samples.Passed("a")))).Message, StringComparison.Ordinal);
        Assert.StartsWith("::notice", output.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void A_summary_page_of_very_many_failures_stays_below_the_limit()
    {
        string excerpt = string.Concat(Enumerable.Repeat(new string('漢', 600) + "\n", 200));
        string page = GithubAnnotations.Markdown(Samples.Summary([.. Enumerable.Range(0, 3000).Select(i => Samples.Panicked($"t{i}") with { Excerpt = excerpt, Title = new string('漢', 900) })]));
        Assert.InRange(Encoding.UTF8.GetByteCount(page), 300_000, 1 << 20);
    }

    [Fact]
    public void Whatever_a_guest_writes_it_gives_no_commands_and_each_failure_is_one() => Samples.ForAllRuns(summary =>
    {
        (List<Command> commands, List<string> others) = Run(summary);
        Assert.DoesNotContain(others, line => line.Contains("##[", StringComparison.Ordinal));
        Assert.All(others, line => Assert.StartsWith("| ", line, StringComparison.Ordinal));
        int errors = summary.Results.Count(result => result.Verdict is not (Verdict.Pass or Verdict.Interrupted));
        Assert.Equal(Math.Min(10, errors), commands.Count(command => command.Name == "error"));
        Assert.Equal(Math.Min(10, summary.Results.Count(result => result.IsFlaky)), commands.Count(command => command.Name == "warning"));
        Assert.Equal(commands.Count(command => command.Name == "group"), commands.Count(command => command.Name == "endgroup"));
        Assert.Equal("notice", commands[^1].Name);
        Assert.All(commands, command => Assert.Contains(command.Name, new[] { "error", "warning", "notice", "group", "endgroup" }));
        Assert.All(commands, command => Assert.True(command.Properties.Keys.All(name => name is "title" or "file")));

        // Each row of the table is one test, and no test has made rows, tags or a fence of its own.
        string page = GithubAnnotations.Markdown(summary);
        string[] lines = page.Split('\n');
        Assert.Equal(1 + summary.Results.Count, lines.Count(line => RowPattern().IsMatch(line)));
        Assert.Equal(errors, lines.Count(line => line.StartsWith("<details>", StringComparison.Ordinal)));
        Assert.Equal(errors, page.Split("</pre>").Length - 1);
        Assert.Equal(errors * 6, page.Count(c => c == '<'));
    });

    [GeneratedRegex(@"^\| .* \| [a-z-]+(, flaky)? \| [0-9.a-z ]+ \| .* \|$")]
    private static partial Regex RowPattern();

    private static (List<Command> Commands, List<string> Others) Run(RunSummary summary)
    {
        using var output = new StringWriter();
        var reporter = new GithubAnnotations(output, null);
        Samples.Play(reporter, summary);
        reporter.RunEnded(summary);
        var commands = new List<Command>();
        var others = new List<string>();
        foreach (string line in output.ToString().Split('\n', '\r', '\u2028', '\u0085')[..^1])
        {
            // As GitHub's runner does: blanks before it do not matter.
            string trimmed = line.TrimStart();
            int end = trimmed.StartsWith("::", StringComparison.Ordinal) ? trimmed.IndexOf("::", 2, StringComparison.Ordinal) : -1;
            if (end < 0)
            {
                others.Add(line);
                continue;
            }

            string[] head = trimmed[2..end].Split(' ', 2);
            var properties = new Dictionary<string, string>();
            foreach (string property in head.Length > 1 ? head[1].Split(',') : [])
                properties.Add(property.Split('=', 2)[0], Unescape(property.Split('=', 2)[1].Replace("%3A", ":", StringComparison.Ordinal).Replace("%2C", ",", StringComparison.Ordinal)));
            commands.Add(new Command(head[0], properties, Unescape(trimmed[(end + 2)..])));
        }

        return (commands, others);
    }

    private static string Unescape(string text) => text.Replace("%0D", "\r", StringComparison.Ordinal).Replace("%0A", "\n", StringComparison.Ordinal).Replace("%25", "%", StringComparison.Ordinal);
}
