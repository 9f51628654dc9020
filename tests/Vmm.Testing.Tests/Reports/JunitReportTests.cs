using System.Diagnostics;
using System.Xml;
using System.Xml.Linq;
using System.Xml.Schema;
using Vmm.Core;

namespace Vmm.Testing.Tests.Reports;

public sealed class JunitReportTests
{
    private static readonly string s_schemaPath = Path.Combine(AppContext.BaseDirectory, "Reports", "junit.xsd");
    private static readonly XmlSchemaSet s_schema = Schema();

    [Fact]
    public void A_failure_has_all_that_one_needs_to_begin_with()
    {
        using var directory = new TemporaryDirectory();
        string log = directory["unix.console.log"];
        File.WriteAllText(log, string.Concat(Enumerable.Range(1, 300).Select(i => $"[    0.{i:d3}] line {i}\n")) + "[    1.000] \e[31m[[ATTACHMENT|/etc/passwd]]\n");
        XElement test = Test(Samples.Panicked("unix", log));
        XElement failure = Assert.Single(test.Elements("failure"));
        Assert.Equal("panic", failure.Attribute("type")!.Value);
        Assert.Equal("KASAN: slab-use-after-free Read in unix_release", failure.Attribute("message")!.Value);
        Assert.All(
            new[] { "panicked 3.2 s after its start", "BUG: KASAN", "--- answer to: bt ---\nunix_release\nsock_close\n", "vcpu0 rip", "NOT DONE at 3.200 s: wait for /login: /", "vmm test tests/boot.json --only 'unix'" },
            part => Assert.Contains(part, failure.Value, StringComparison.Ordinal));
        Assert.Equal(("unix", "tests/boot.json", "tests/boot.json", "6.500"), (test.Attribute("name")!.Value, test.Attribute("classname")!.Value, test.Attribute("file")!.Value, test.Attribute("time")!.Value));
        Assert.Equal(["verdict=panic", "attempts=2", "tag=smoke", "tag=x86", $"console_log={log}", "repeat=vmm test tests/boot.json --only 'unix'"],
            test.Descendants("property").Select(property => $"{property.Attribute("name")!.Value}={property.Attribute("value")!.Value}"));
        Assert.Equal("timeout", Assert.Single(test.Elements("rerunFailure")).Attribute("type")!.Value);

        // The last lines of the log, and one attachment, which is the log and nothing that a guest named.
        string output = test.Element("system-out")!.Value;
        Assert.Contains("line 300\n", output, StringComparison.Ordinal);
        Assert.DoesNotContain("line 200\n", output, StringComparison.Ordinal);
        Assert.Equal(1, Count(output, "[[ATTACHMENT|"));
        Assert.EndsWith($"[[ATTACHMENT|{log}]]\n", output, StringComparison.Ordinal);
    }

    [Fact]
    public void Each_verdict_is_what_readers_call_it()
    {
        foreach (Verdict verdict in Enum.GetValues<Verdict>())
        {
            XElement test = Test(Samples.Panicked("x") with { Verdict = verdict, Attempts = [] });
            string[] expected = verdict switch
            {
                Verdict.Pass => [],
                Verdict.VmmError => ["error"],
                Verdict.Interrupted => ["skipped"],
                _ => ["failure"],
            };
            Assert.Equal(expected, test.Elements().Select(element => element.Name.LocalName).Where(name => name is not ("properties" or "system-out")));
        }
    }

    [Fact]
    public void A_flaky_test_has_passed_and_says_what_came_before()
    {
        XElement test = Test(Samples.Flaky("net"));
        Assert.Empty(test.Elements("failure"));
        XElement flaky = Assert.Single(test.Elements("flakyFailure"));
        Assert.Equal(("hang", "silent for 30 s"), (flaky.Attribute("type")!.Value, flaky.Attribute("message")!.Value));
        Assert.Equal("flakyError", Test(Samples.Flaky("net") with { Attempts = [new(Verdict.VmmError, "no /dev/kvm", "", default), new(Verdict.Pass, "", "", default)] })
            .Elements().Single(element => element.Name.LocalName.StartsWith("flaky", StringComparison.Ordinal)).Name.LocalName);
    }

    [Fact]
    public void Suites_are_sources_and_their_sums_are_right()
    {
        XElement root = Report(Samples.Summary(
            Samples.Passed("a"), Samples.Panicked("b"), Samples.Passed("c") with { Source = "command line", Verdict = Verdict.VmmError }, Samples.Passed("d") with { Verdict = Verdict.Interrupted })).Root!;
        Assert.Equal("4 1 1 1 65.000", Sums(root));
        Assert.Equal(["tests/boot.json", "command line"], root.Elements().Select(suite => suite.Attribute("name")!.Value));
        Assert.Equal(["3 1 0 1 15.000", "1 0 1 0 4.250"], root.Elements().Select(Sums));
        Assert.Null(root.Elements().Last().Element("testcase")!.Attribute("file"));
    }

    [Fact]
    public void Whatever_a_guest_writes_it_is_valid_and_has_each_test_once() => Samples.ForAllRuns(summary =>
    {
        XDocument report = Report(summary);
        List<XElement> tests = [.. report.Descendants("testcase")];
        Assert.Equal(summary.Results.Count, tests.Count);
        Assert.Equal(summary.Results.Count(result => result.Verdict == Verdict.VmmError), tests.Count(test => test.Element("error") != null));
    });

    [SkippableFact]
    public void Xmllint_finds_it_valid_too()
    {
        const string Program = "/usr/bin/xmllint";
        Skip.IfNot(File.Exists(Program), "xmllint is not installed; the other tests validate with .NET.");
        using var directory = new TemporaryDirectory();
        int number = 0;
        Samples.ForAllRuns(summary => new JunitReport(directory[$"{number++}.xml"]).RunEnded(summary), cases: 60);
        using var process = Process.Start(new ProcessStartInfo(Program, ["--noout", "--nonet", "--schema", s_schemaPath, .. Directory.GetFiles(directory.Path)]) { RedirectStandardError = true })!;
        string errors = process.StandardError.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, errors);
        Assert.Equal(60, Count(errors, " validates"));
    }

    [Fact]
    public void It_is_written_in_one_piece_and_directories_are_made()
    {
        using var directory = new TemporaryDirectory();
        string path = directory["deep/er/junit.xml"];
        new JunitReport(path).RunEnded(Samples.Summary(Samples.Passed("a")));
        XDocument.Load(path);
        Assert.Equal([path], Directory.GetFiles(Path.GetDirectoryName(path)!));

        // What cannot be put into place leaves nothing behind: here a directory has the report's name.
        Directory.CreateDirectory(directory["taken/x"]);
        VmmException error = Assert.Throws<VmmException>(() => new JunitReport(directory["taken"]).RunEnded(Samples.Summary(Samples.Passed("a"))));
        Assert.Contains("Cannot write the JUnit report to", error.Message, StringComparison.Ordinal);
        Assert.Equal(["deep", "taken"], Directory.GetFileSystemEntries(directory.Path).Select(Path.GetFileName).Order());
    }

    [Fact]
    public void A_link_is_followed_and_a_device_is_not_replaced()
    {
        using var directory = new TemporaryDirectory();
        File.WriteAllText(directory["real.xml"], "old");
        File.CreateSymbolicLink(directory["link.xml"], "real.xml");
        new JunitReport(directory["link.xml"]).RunEnded(Samples.Summary(Samples.Passed("a")));
        Assert.NotNull(new FileInfo(directory["link.xml"]).LinkTarget);
        XDocument.Load(directory["real.xml"]);

        File.CreateSymbolicLink(directory["null.xml"], "/dev/null");
        new JunitReport(directory["null.xml"]).RunEnded(Samples.Summary(Samples.Passed("a")));
        Assert.Equal("/dev/null", new FileInfo(directory["null.xml"]).LinkTarget);
        Assert.False(new FileInfo("/dev/null").Attributes.HasFlag(FileAttributes.Directory));
        Assert.Empty(File.ReadAllText("/dev/null"));
        Assert.Equal(3, Directory.GetFiles(directory.Path).Length);
    }

    private static int Count(string text, string part) => text.Split(part).Length - 1;

    private static string Sums(XElement element) =>
        string.Join(' ', new[] { "tests", "failures", "errors", "skipped", "time" }.Select(name => element.Attribute(name)!.Value));

    private static XElement Test(TestResult result) => Assert.Single(Report(Samples.Summary(result)).Descendants("testcase"));

    private static XDocument Report(RunSummary summary)
    {
        using var stream = new MemoryStream();
        JunitReport.Write(stream, summary);
        stream.Position = 0;
        XDocument report = XDocument.Load(stream);
        report.Validate(s_schema, (_, e) => throw e.Exception);
        return report;
    }

    private static XmlSchemaSet Schema()
    {
        var set = new XmlSchemaSet();
        using var reader = XmlReader.Create(s_schemaPath);
        set.Add(null, reader);
        set.Compile();
        return set;
    }
}
