using System.Globalization;
using System.Text.RegularExpressions;
using Vmm.Sandbox;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests.Virtio;

/// <summary>What a guest's script found, and how its VMM ended.</summary>
public sealed partial class GuestRun
{
    private readonly CommandResult _result;
    private readonly TimeSpan _took;

    internal GuestRun(CommandResult result, TimeSpan took)
    {
        _result = result;
        _took = took;
        Match code = Code().Match(Output);
        if (code.Success)
            ExitCode = int.Parse(code.Groups[1].Value, CultureInfo.InvariantCulture);
    }

    /// <summary>All that came from the guest's console and from the VMM.</summary>
    public string Output => _result.Output;

    /// <summary>The VMM's exit code; null where it did not end in time.</summary>
    public int? ExitCode { get; }

    /// <summary>Names of the checks that the guest made, in turn, with what came of them: "ok", or why not.</summary>
    public IEnumerable<(string Name, string Result)> Checks =>
        CheckLine().Matches(Output).Select(match => (match.Groups[2].Value, match.Groups[3].Value.Trim()));

    // Seconds since the guest's start, of each check's end.
    private IEnumerable<(string Name, double At)> Times =>
        CheckLine().Matches(Output).Select(match => (match.Groups[2].Value, double.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture)));

    /// <summary>Lines that begin with a word, without it.</summary>
    public IEnumerable<string> Lines(string word) =>
        Output.Split('\n').Where(line => line.StartsWith(word + " ", StringComparison.Ordinal)).Select(line => line[(word.Length + 1)..].TrimEnd());

    /// <summary>Fails unless every check went well, and the last one, "end", was reached.</summary>
    public void AssertChecks(ITestOutputHelper log)
    {
        ArgumentNullException.ThrowIfNull(log);
        log.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{_took.TotalSeconds:F0} s, {Checks.Count()} checks"));
        foreach (string line in Output.Split('\n').Where(line => line.StartsWith("VMM-FACT", StringComparison.Ordinal)))
            log.WriteLine(line.TrimEnd());
        (string Name, double At)[] times = [.. Times];
        IEnumerable<string> slowest = times.Select((time, i) => (time.Name, Took: time.At - (i > 0 ? times[i - 1].At : 0)))
            .OrderByDescending(time => time.Took).Take(8).Select(time => string.Create(CultureInfo.InvariantCulture, $"{time.Name} {time.Took:F1}"));
        log.WriteLine("slowest, in the guest's seconds: " + string.Join(", ", slowest));
        string[] failed = [.. Checks.Where(check => check.Result != "ok").Select(check => $"{check.Name}: {check.Result}")];
        if (failed.Length > 0 || !Checks.Contains(("end", "ok")))
            log.WriteLine(Output + _result.Error);
        Assert.False(_result.TimedOut, "the guest did not end in time");
        Assert.Empty(failed);
        Assert.Contains(("end", "ok"), Checks);
    }

    [GeneratedRegex(@"^VMM-CODE (\d+)", RegexOptions.Multiline)]
    private static partial Regex Code();

    // A line of vmm's log may come before the end of the guest's line: both are in one stream here.
    [GeneratedRegex(@"^VMM-CHECK @(\S+) (\S+) ([^\r\n]*?)(?=vmm: (?:warn|info|error): |\r|\n|\z)", RegexOptions.Multiline)]
    private static partial Regex CheckLine();
}
