using Vmm.Core;

namespace Vmm.Testing.Tests.Reports;

public sealed class CombinedReporterTests
{
    [Fact]
    public void A_report_that_cannot_be_written_does_not_keep_others_from_it()
    {
        using var directory = new TemporaryDirectory();
        File.WriteAllText(directory["file"], "");
        using var output = new StringWriter();
        RunSummary summary = Samples.Summary(Samples.Passed("a"));
        using var all = new CombinedReporter([new JunitReport(directory["file/below.xml"]), new Broken(), new JsonReport(directory["good.json"]), new PlainReporter(output)]);
        Samples.Play(all, summary);
        VmmException error = Assert.Throws<VmmException>(() => all.RunEnded(summary));
        Assert.Contains("file/below.xml", error.Message, StringComparison.Ordinal);
        Assert.Contains("on purpose", error.Message, StringComparison.Ordinal);
        Assert.True(File.Exists(directory["good.json"]));
        Assert.Contains("1 test in 65.0 s: 1 pass", output.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void One_error_is_told_as_it_is()
    {
        RunSummary summary = Samples.Summary(Samples.Passed("a"));
        using var all = new CombinedReporter([new JunitReport("/dev/null/x")]);
        VmmException error = Assert.Throws<VmmException>(() => all.RunEnded(summary));
        Assert.StartsWith("Cannot write the JUnit report to /dev/null/x: ", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void All_are_told_everything_in_order()
    {
        using StringWriter one = new(), two = new();
        RunSummary summary = Samples.Summary(Samples.Flaky("a"), Samples.Panicked("b"));
        using (var all = new CombinedReporter([new PlainReporter(one), new PlainReporter(two)]))
        {
            Samples.Play(all, summary);
            all.RunEnded(summary);
        }

        Assert.Contains("retry a", one.ToString(), StringComparison.Ordinal);
        Assert.Equal(one.ToString(), two.ToString());
    }

    private sealed class Broken : IRunReporter
    {
        public void RunStarted(IReadOnlyList<string> tests, int jobs)
        {
        }

        public void AttemptStarted(string test, int attempt)
        {
        }

        public void Progress(string test, string what)
        {
        }

        public void AttemptFailed(string test, int attempt, AttemptResult result)
        {
        }

        public void TestEnded(TestResult result)
        {
        }

        public void RunEnded(RunSummary summary) => throw new InvalidOperationException("on purpose");
    }
}
