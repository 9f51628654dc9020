using System.CommandLine;
using System.CommandLine.Parsing;
using Vmm.Core;
using Vmm.Machine.Configuration;
using Vmm.Machine.Console;
using Vmm.Testing;
using Vmm.Testing.Reports;
using Vmm.Testing.Running;
using Vmm.Testing.Specification;

namespace Vmm.Cli;

/// <summary><c>vmm test</c>: boots guests and says whether they did what was expected of them.</summary>
internal static class TestCommand
{
    internal const string FilesName = "tests";

    /// <summary>Its options, besides those of the machine: name, argument, whether it repeats, help, what can be completed.</summary>
    internal static readonly (string Name, string? Argument, bool Repeats, string Help)[] Options =
    [
        ("--expect", "REGEX", true, "A line that the console must show, in the order in which they are given; the test passes with the last one unless --exit or --code is given."),
        ("--forbid", "REGEX", true, "What no line of the console may show."),
        ("--step", "wait=REGEX[,timeout=TIME] | send=TEXT", true, "A step, in order, before what is expected: wait for a line, or type (\\n ends a line)."),
        ("--exit", "[poweroff,reboot,panic,triple-fault,code]", false, "How the guest must end after the last step. Default without any step: poweroff."),
        ("--code", "N", false, "The code that the guest must hand over: port 0xF4, or VMM-EXIT=N as its last line. Default: none but 0 passes."),
        ("--timeout", "TIME", false, "How long a test may take. Default: 60s."),
        ("--step-timeout", "TIME", false, "How long each step may take. Default: as long as the test."),
        ("--hang", "TIME", false, "How long the console may be silent. Default: as long as the test."),
        ("--fail-on", "[none,oops,warning,hang]", false, "Which reports of the guest's kernel fail a test, besides panics. Default: [oops,hang]."),
        ("--ignore", "REGEX", true, "Titles of kernel reports that do not count."),
        ("--retries", "N", false, "How often a test that failed is tried again. Default: 0."),
        ("--max-reboots", "N", false, "How often the guest may reboot and start anew. Default: 0."),
        ("--symbols", "PATH", false, "System.map or vmlinux of the kernel, for crash reports."),
        ("--nmi-on-hang", "on|off", false, "Whether a guest that hangs gets NMIs; Linux is told to answer them (unknown_nmi_panic). Default: on."),
        ("--matrix", "OPTION=[A,B],...", true, "Run each test with every combination: --matrix kernel=[K1,K2],cpus=[\"boot=1\",\"boot=2\"]."),
        ("--tag", "TAG", true, "Only tests with one of these tags."),
        ("--only", "NAME", true, "Only tests with one of these names; * stands for anything."),
        ("--list", null, false, "List the tests instead of running them."),
        ("--jobs", "N", false, "How many tests run at once, as far as the host's memory goes; 0 for as many as it has processors. Default: 1."),
        ("--report", "dir=DIR,junit=PATH,json=PATH,github=on|off|auto,progress=live|plain|auto", false, "Where reports go. dir gets console logs and configurations."),
    ];

    /// <summary>Runs the tests.</summary>
    internal static int Execute(ParseResult parsed)
    {
        Command command = parsed.CommandResult.Command;
        string[] Values(string name) => [.. ResultOf(parsed, command, name)?.Tokens.Select(token => token.Value) ?? []];
        string? Value(string name) => Values(name) is [.., { } last] ? last : null;

        string[] files = parsed.GetValue<string[]>(FilesName) ?? [];
        IReadOnlyList<TestCase> tests = TestPlan.Make(files, new TestPlanOptions
        {
            Change = Change(Value, Values),
            Configure = builder => Configure(parsed, command, builder),
            Matrix = Values("--matrix"),
            Tags = Values("--tag"),
            Only = Values("--only"),
            Repeat = (name, source) => Repeat(parsed, command, files.Length > 0 ? source : null, name),
        });
        if (ResultOf(parsed, command, "--list") != null)
        {
            foreach (TestCase test in tests)
                Output.Write((test.Tags.Count == 0 ? test.Name : $"{test.Name}  ({string.Join(", ", test.Tags)})") + "\n");
            return ExitCodes.Success;
        }

        TestReports reports = TestReports.From(Value("--report"));
        using var cancel = new CancellationTokenSource();
        using var signals = new TerminationSignals(_ => cancel.Cancel());
        using CombinedReporter reporter = reports.Open();
        RunSummary summary = new TestRun(tests, reporter, Number("--jobs", Value("--jobs"), 1000) ?? 1, reports.Directory).RunAsync(cancel.Token).GetAwaiter().GetResult();
        return signals.Received != 0 ? ExitCodes.Signal(signals.Received) : Verdicts.ExitCode(summary.Results.Select(result => result.Verdict));
    }

    private static Func<TestSpec, TestSpec> Change(Func<string, string?> value, Func<string, string[]> values)
    {
        List<TestStep> steps = [.. values("--step").Select(text => TestStep.Parse("--step", text))];
        steps.AddRange(values("--expect").Select(text => new TestStep(TestStep.Pattern("--expect", text), null)));
        List<System.Text.RegularExpressions.Regex> forbidden = [.. values("--forbid").Select(text => TestStep.Pattern("--forbid", text))];
        List<System.Text.RegularExpressions.Regex> ignored = [.. values("--ignore").Select(text => TestStep.Pattern("--ignore", text))];
        List<Machine.VmExitReason>? exits = value("--exit") is { } exit ? [.. Words("--exit", exit).Select(word => TestSpec.ParseExit("--exit", word))] : null;
        Failures? failures = value("--fail-on") is { } words ? TestSpec.ParseFailures("--fail-on", Words("--fail-on", words)) : null;
        uint? code = value("--code") is { } text && Number("--code", text, int.MaxValue) is { } number ? (uint)number : null;
        TimeSpan? timeout = Time("--timeout", value);
        TimeSpan? step = Time("--step-timeout", value);
        TimeSpan? hang = Time("--hang", value);
        int? retries = Number("--retries", value("--retries"), 100);
        int? reboots = Number("--max-reboots", value("--max-reboots"), 1000);
        bool? nmi = value("--nmi-on-hang") switch
        {
            null => null,
            "on" => true,
            "off" => false,
            { } other => throw VmmException.Configuration($"--nmi-on-hang: {OptionGrammar.Show(other)} is neither on nor off."),
        };
        return spec => spec with
        {
            Steps = [.. spec.Steps, .. steps],
            Forbid = [.. spec.Forbid, .. forbidden],
            Ignore = [.. spec.Ignore, .. ignored],
            Exits = exits ?? spec.Exits,
            Code = code ?? spec.Code,
            Timeout = timeout ?? spec.Timeout,
            StepTimeout = step ?? spec.StepTimeout,
            Hang = hang ?? spec.Hang,
            FailOn = failures ?? spec.FailOn,
            Retries = retries ?? spec.Retries,
            MaxReboots = reboots ?? spec.MaxReboots,
            Symbols = value("--symbols") ?? spec.Symbols,
            NmiOnHang = nmi ?? spec.NmiOnHang,
        };
    }

    private static void Configure(ParseResult parsed, Command command, VmConfigBuilder builder)
    {
        if (parsed.GetValue<string>(CommandTree.ConfigName) is { } path)
            builder.AddFile(path);
        foreach (OptionSchema option in VmConfig.Options)
        {
            foreach (Token token in ResultOf(parsed, command, option.Name)?.Tokens ?? [])
                builder.AddOption(option, token.Value);
        }
    }

    /// <summary>The command line again, with this test's file and name in place of what chose it.</summary>
    private static string Repeat(ParseResult parsed, Command command, string? source, string name)
    {
        List<string> words = ["vmm", "test"];
        if (source != null)
            words.Add(source);
        foreach (string option in VmConfig.Options.Select(option => option.Name).Append(CommandTree.ConfigName).Concat(Options.Select(option => option.Name)))
        {
            if (option is "--tag" or "--only" or "--jobs" or "--report" or "--list" or "--retries")
                continue;
            foreach (Token token in ResultOf(parsed, command, option)?.Tokens ?? [])
                words.AddRange([option, token.Value]);
        }
        if (source != null || ResultOf(parsed, command, "--matrix") != null)
            words.AddRange(["--only", name]);
        return string.Join(' ', words.Select(Quote));
    }

    private static string Quote(string word) =>
        word.Length > 0 && word.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' or '.' or '/' or '=' or ':' or ',' or '@' or '+' or '%') ? word
            : "'" + word.Replace("'", "'\\''", StringComparison.Ordinal) + "'";

    private static OptionResult? ResultOf(ParseResult parsed, Command command, string name)
    {
        foreach (Option option in command.Options)
        {
            if (option.Name == name)
                return parsed.GetResult(option) is { Implicit: false } result ? result : null;
        }
        return null;
    }

    // A list with or without its brackets.
    private static IEnumerable<string> Words(string origin, string text) =>
        OptionGrammar.Parse(origin, text.StartsWith('[') ? $"x={text}" : $"x=[{text}]")[0].Items!;

    private static TimeSpan? Time(string name, Func<string, string?> value) => value(name) is { } text ? TimeLimit.Parse(name, text) : null;

    private static int? Number(string name, string? text, int most)
    {
        if (text == null)
            return null;
        return int.TryParse(text, System.Globalization.NumberStyles.None, System.Globalization.CultureInfo.InvariantCulture, out int number) && number <= most ? number
            : throw VmmException.Configuration($"{name}: {OptionGrammar.Show(text)} is no whole number from 0 to {most}.");
    }
}
