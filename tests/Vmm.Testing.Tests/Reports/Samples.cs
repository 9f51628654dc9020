using FsCheck;
using FsCheck.Fluent;

namespace Vmm.Testing.Tests.Reports;

/// <summary>Results to report: ordinary ones, and such as a hostile guest or a strange test file would give.</summary>
internal static class Samples
{
    internal static readonly DateTimeOffset Noon = new(2026, 11, 21, 12, 0, 0, TimeSpan.Zero);

    private static readonly string[] s_nasty =
    [
        "]]>", "<![CDATA[", "</testcase>", "&amp;", "<pre>", "</pre>", "</details>", "\"", "'", "\0", "\u0007", "\e[31m", "\e[2J\e[?25l", "\r", "\n", "\r\n", "\t", "\u0085", "\u2028",
        "\u202E", "\uFFFE", "\uFFFF", "\uD800", "\uDC00", "\uD83D", "🙂", "👩‍👩‍👧‍👦", "é", "漢字", "::error::owned", "\n::error title=x::owned", "  ::set-output name=a::b", "##[error]owned",
        "##vso[task.complete]", "::endgroup::", "[red]", "[/]", "[[", "[link=x]y[/]", "%", "%0A", ",", ":", "|", "\\", "`", "@everyone", "[[ATTACHMENT|/etc/passwd]]", "../../etc/passwd",
        "/", ".", "..", "-rf", " ", "", "pass  x", "\nFAIL  x", "section_start:1:x\r\e[0K", "long " + "x", "panic: ",
    ];

    /// <summary>Any text: pieces that mean something to some format, and any characters.</summary>
    internal static Gen<string> Text { get; } =
        from pieces in Gen.Frequency((4, Gen.Elements(s_nasty)), (1, Gen.Choose(0, 0xFFFF).Select(c => ((char)c).ToString())), (2, Gen.Elements("boots", "login:", "kernel", "a b")))
            .ListOf()
        from times in Gen.Frequency((20, Gen.Constant(1)), (1, Gen.Choose(2, 40)))
        select string.Concat(Enumerable.Repeat(string.Concat(pieces), times));

    internal static Gen<TestResult> Result { get; } =
        from verdict in Gen.Elements(Enum.GetValues<Verdict>())
        from attempts in Gen.Choose(1, 3)
        from texts in Text.ListOf(10)
        from milliseconds in Gen.Choose(0, 10_000_000)
        select new TestResult
        {
            Name = texts[0],
            Source = texts[1].Length % 3 == 0 ? "command line" : texts[1],
            Tags = [texts[2]],
            Verdict = verdict,
            Title = verdict == Verdict.Pass ? "" : texts[3],
            Message = verdict == Verdict.Pass ? "" : texts[4],
            Excerpt = texts[5] + "\n" + texts[6],
            Started = Noon,
            Duration = TimeSpan.FromMilliseconds(milliseconds),
            Attempts = [.. Enumerable.Range(1, attempts).Select(i => new AttemptResult(i == attempts ? verdict : Verdict.Hang, texts[3], texts[4], TimeSpan.FromSeconds(i)))],
            Steps = [new StepResult(texts[7], true, TimeSpan.FromSeconds(1)), new StepResult(texts[8], false, TimeSpan.FromSeconds(2))],
            Answers = [new TriageAnswer(texts[8], texts[6])],
            Vcpus = texts[7],
            ConsoleLog = milliseconds % 2 == 0 ? null : texts[9],
            Configuration = milliseconds % 3 == 0 ? "{\"cpus\":{\"boot\":2}}" : texts[9],
            Repeat = texts[2],
        };

    /// <summary>Whole runs; the names in them differ.</summary>
    internal static Gen<RunSummary> Run { get; } =
        from results in Result.ListOf()
        select new RunSummary([.. results.DistinctBy(result => result.Name)], Noon, TimeSpan.FromSeconds(33));

    internal static TestResult Passed(string name) => new()
    {
        Name = name,
        Source = "tests/boot.json",
        Verdict = Verdict.Pass,
        Started = Noon,
        Duration = TimeSpan.FromSeconds(4.25),
        Attempts = [new AttemptResult(Verdict.Pass, "", "", TimeSpan.FromSeconds(4.25))],
        Configuration = "{\"cpus\":{\"boot\":1}}",
        Repeat = $"vmm test tests/boot.json --only '{name}'",
    };

    internal static TestResult Flaky(string name) => Passed(name) with
    {
        Attempts =
        [
            new AttemptResult(Verdict.Hang, "silent for 30 s", "The console was silent for 30 s.", TimeSpan.FromSeconds(30)),
            new AttemptResult(Verdict.Pass, "", "", TimeSpan.FromSeconds(4)),
        ],
    };

    internal static TestResult Panicked(string name, string? log = null) => Passed(name) with
    {
        Verdict = Verdict.Panic,
        Tags = ["smoke", "x86"],
        Title = "KASAN: slab-use-after-free Read in unix_release",
        Message = "The guest's kernel panicked 3.2 s after its start, while waiting for /login: /.",
        Excerpt = "BUG: KASAN: slab-use-after-free in unix_release+0x12/0x40\nKernel panic - not syncing: Fatal exception\n",
        Duration = TimeSpan.FromSeconds(6.5),
        Attempts =
        [
            new AttemptResult(Verdict.Timeout, "timeout: wait for /login: /", "It took 60 s.", TimeSpan.FromSeconds(3)),
            new AttemptResult(Verdict.Panic, "KASAN: slab-use-after-free Read in unix_release", "Again.", TimeSpan.FromSeconds(3.2)),
        ],
        Steps = [new StepResult("wait for /Linux version/", true, TimeSpan.FromSeconds(0.4)), new StepResult("wait for /login: /", false, TimeSpan.FromSeconds(3.2))],
        Answers = [new TriageAnswer("bt", "unix_release\nsock_close\n")],
        Vcpus = "vcpu0 rip ffffffff81000000",
        ConsoleLog = log,
    };

    internal static RunSummary Summary(params TestResult[] results) => new(results, Noon, TimeSpan.FromSeconds(65));

    /// <summary>Tells a reporter a run as the engine would, without its end.</summary>
    internal static void Play(IRunReporter reporter, RunSummary summary)
    {
        reporter.RunStarted([.. summary.Results.Select(result => result.Name)], 2);
        foreach (TestResult result in summary.Results)
        {
            for (int attempt = 1; attempt <= result.Attempts.Count; attempt++)
            {
                reporter.AttemptStarted(result.Name, attempt);
                reporter.Progress(result.Name, result.Excerpt);
                if (attempt < result.Attempts.Count)
                    reporter.AttemptFailed(result.Name, attempt, result.Attempts[attempt - 1]);
            }

            reporter.TestEnded(result);
        }
    }

    internal static void ForAllRuns(Action<RunSummary> check, int cases = 300) =>
        Prop.ForAll(Run.ToArbitrary(), check).Check(Config.QuickThrowOnFailure.WithMaxTest(cases).WithReplay(20261121, 5));
}
