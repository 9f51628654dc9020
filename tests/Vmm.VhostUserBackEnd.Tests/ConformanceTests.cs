using Vmm.VhostUserBackEnd.Conformance;

namespace Vmm.VhostUserBackEnd.Tests;

/// <summary>The scenarios pass with a front-end that does what they ask, and find one that does not.</summary>
public sealed class ConformanceTests
{
    // They mostly wait, so many run at a time, each with a front-end of its own.
    private static readonly SemaphoreSlim Turns = new(8);
    private static readonly Lazy<Dictionary<string, Task<ScenarioResult>>> Results = new(() =>
        Scenarios.All.ToDictionary(scenario => scenario.Name, scenario => Begin(scenario.Name, Quirks.None)));

    public static TheoryData<string> Names => [.. Scenarios.All.Select(scenario => scenario.Name)];

    [Theory]
    [MemberData(nameof(Names))]
    public async Task A_front_end_that_keeps_the_rules_passes(string name)
    {
        ScenarioResult result = await Results.Value[name];
        Assert.True(result.Outcome == ScenarioOutcome.Pass, $"{result.Outcome}: {result.Why}\n{result.Transcript}");
    }

    [Theory]
    [InlineData("features-wrong-id", (int)Quirks.TakesAnyReply)]
    [InlineData("features-version-2", (int)Quirks.TakesAnyReply)]
    [InlineData("kick-ack-long", (int)Quirks.TakesAnyReply)]
    [InlineData("channel-ack-40-descriptors", (int)Quirks.TakesAnyReply)]
    [InlineData("refused-set-vring-kick", (int)Quirks.StartsAnyway)]
    [InlineData("overlap", (int)Quirks.MapsOverMappings)]
    [InlineData("odd-length", (int)Quirks.MapsOverMappings)]
    [InlineData("exact-unmap", (int)Quirks.UnmapsParts)]
    [InlineData("two-as-one", (int)Quirks.UnmapsParts)]
    [InlineData("file-too-short", (int)Quirks.GrowsFiles)]
    [InlineData("without-need-reply", (int)Quirks.AnswersUnasked)]
    [InlineData("channel-need-reply-without-reply-ack", (int)Quirks.AnswersUnasked)]
    [InlineData("unknown-unmap", (int)Quirks.EndsChannelOnError)]
    [InlineData("channel-request-99", (int)Quirks.EndsChannelOnError)]
    [InlineData("hangup", (int)Quirks.KeepsMappings)]
    [InlineData("comes-back", (int)Quirks.NeverComesBack)]
    [InlineData("features-short", (int)Quirks.NeverComesBack)]
    [InlineData("comes-back-with-other-regions", (int)Quirks.TakesOtherDevices)]
    [InlineData("comes-back-without-a-feature", (int)Quirks.TakesOtherDevices)]
    public async Task A_front_end_that_breaks_a_rule_is_found(string name, int quirks)
    {
        ScenarioResult result = await Begin(name, (Quirks)quirks);
        Assert.True(result.Outcome == ScenarioOutcome.Fail, $"{result.Outcome}: {result.Why}\n{result.Transcript}");
    }

    [Fact]
    public void Names_are_unique()
    {
        Assert.Equal(Scenarios.All.Count, Scenarios.All.Select(scenario => scenario.Name).Distinct().Count());
        Assert.All(Scenarios.All, scenario => Assert.Contains(scenario.Rule, new[] { "mapping", "migration", "fault" }));
    }

    [Fact]
    public void A_front_end_that_does_not_come_is_skipped_and_one_that_dies_fails()
    {
        string path = Path.Combine(Path.GetTempPath(), $"vmm-conformance-{Guid.NewGuid():n}");
        ScenarioResult result = ConformanceRunner.Run(Scenarios.Named("map"), new ConformanceOptions { Socket = path, StartTimeout = TimeSpan.FromMilliseconds(100) });
        Assert.Equal(ScenarioOutcome.Skip, result.Outcome);
        result = ConformanceRunner.Run(Scenarios.Named("map"), new ConformanceOptions { Socket = path, StartTimeout = TimeSpan.FromMilliseconds(100), Died = () => "signal 6" });
        Assert.Equal(ScenarioOutcome.Fail, result.Outcome);
        Assert.Contains("signal 6", result.Why, StringComparison.Ordinal);
    }

    private static Task<ScenarioResult> Begin(string name, Quirks quirks) => Task.Factory.StartNew(
        () =>
        {
            Turns.Wait();
            try
            {
                return Run(name, quirks);
            }
            finally
            {
                Turns.Release();
            }
        },
        CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);

    private static ScenarioResult Run(string name, Quirks quirks)
    {
        string path = Path.Combine(Path.GetTempPath(), $"vmm-conformance-{Guid.NewGuid():n}");
        Scenario scenario = Scenarios.Named(name);
        MiniFrontEnd? frontEnd = null;
        return ConformanceRunner.Run(scenario, new ConformanceOptions
        {
            Socket = path,
            ComesBack = true,
            // Only a failure waits for so long; front-ends that are to fail do not get it.
            StartTimeout = TimeSpan.FromSeconds(quirks == Quirks.None ? 60 : 5),
            ReactionTimeout = TimeSpan.FromSeconds(quirks == Quirks.None ? 30 : 2),
            SilenceTimeout = TimeSpan.FromSeconds(quirks == Quirks.None ? 40 : 8),
            OnListening = () => frontEnd = new MiniFrontEnd(path, quirks, migrates: scenario.Rule == "migration"),
            OnEnd = () => frontEnd?.Dispose(),
        });
    }
}
