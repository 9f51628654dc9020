using FsCheck;
using FsCheck.Fluent;
using Vmm.Core;
using Vmm.Machine;
using Vmm.Machine.Configuration;
using Vmm.Testing.Specification;

namespace Vmm.Testing.Tests.Specification;

public sealed class TestPlanTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-plan-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void The_command_line_alone_is_a_test()
    {
        TestCase test = Assert.Single(TestPlan.Make([], new TestPlanOptions { Configure = Kernel("k") }));
        Assert.Equal(("boot", "command line", "k", true), (test.Name, test.Source, test.Config.Payload.Kernel, test.Config.DebugExit.Enabled));
        Assert.Equal(PanicAction.Continue, test.Config.OnPanic.Action);
    }

    [Fact]
    public void A_file_has_defaults_and_tests()
    {
        IReadOnlyList<TestCase> tests = Read("""
            {
              // Comments and a comma at the end are fine.
              "defaults": {"vm": {"payload": {"kernel": "k"}, "memory": {"size": "128M"}}, "timeout": "5m", "forbid": ["BUG"], "tags": ["all"]},
              "tests": [
                {"name": "one", "tags": ["smoke"], "expect": "login:", "forbid": "WARN", "steps": [{"send": "x\n"}, "prompt", {"wait": "y", "timeout": 3}]},
                {"timeout": "90s", "vm": {"memory": "size=256M"}, "exit": ["poweroff", "reboot"], "code": 3, "hang": "500ms", "step_timeout": "1m", "retries": 2,
                 "max-reboots": 4, "fail_on": ["oops", "warning"], "ignore": "known", "symbols": "System.map", "nmi_on_hang": false},
              ],
            }
            """);
        Assert.Equal(["one", "tests-2"], tests.Select(test => test.Name));
        TestSpec one = tests[0].Spec;
        Assert.Equal(["send 'x\\u000a'", "wait for /prompt/", "wait for /y/", "wait for /login:/"], one.Steps.Select(step => step.Description));
        Assert.Equal(TimeSpan.FromSeconds(3), one.Steps[2].Timeout);
        Assert.Equal(["BUG", "WARN"], one.Forbid.Select(pattern => pattern.ToString()));
        Assert.Equal((TimeSpan.FromMinutes(5), 128 * ByteSize.MiB), (one.Timeout, tests[0].Config.Memory.Size));
        Assert.Equal(["all", "smoke"], tests[0].Tags);
        TestSpec two = tests[1].Spec;
        Assert.Equal([VmExitReason.PowerOff, VmExitReason.Reboot], two.Exits);
        Assert.Equal((3u, TimeSpan.FromSeconds(90), TimeSpan.FromMilliseconds(500), TimeSpan.FromMinutes(1)), (two.Code!.Value, two.Timeout, two.Hang!.Value, two.StepTimeout!.Value));
        Assert.Equal((2, 4, Failures.Oops | Failures.Warning, "System.map", false), (two.Retries, two.MaxReboots, two.FailOn, two.Symbols, two.NmiOnHang));
        Assert.Equal((256 * ByteSize.MiB, "k", RebootAction.Restart), (tests[1].Config.Memory.Size, tests[1].Config.Payload.Kernel, tests[1].Config.OnReboot.Action));
    }

    [Fact]
    public void A_matrix_multiplies_and_the_command_line_goes_before_it()
    {
        string file = Write("""{"name": "boots", "matrix": {"kernel": ["a", "b"], "machine": [{"name": "up"}, {"name": "smp", "cpus": "boot=2", "bus": "mmio"}]}}""");
        IReadOnlyList<TestCase> tests = TestPlan.Make([file], new TestPlanOptions { Matrix = ["memory=[\"size=128M\",\"size=256M\"]"] });
        Assert.Equal(8, tests.Count);
        Assert.Equal("boots[kernel=a,machine=up,memory=size=128M]", tests[0].Name);
        Assert.Equal("boots[kernel=b,machine=smp,memory=size=256M]", tests[7].Name);
        Assert.Equal(("b", 2, 256 * ByteSize.MiB), (tests[7].Config.Payload.Kernel, tests[7].Config.Cpus.Boot, tests[7].Config.Memory.Size));
        Assert.All(TestPlan.Make([file], new TestPlanOptions { Configure = Kernel("c") }), test => Assert.Equal("c", test.Config.Payload.Kernel));
    }

    [Fact]
    public void Tests_are_chosen_by_tags_and_names()
    {
        string file = Write("""[{"name": "a[1]", "tags": ["x"]}, {"name": "a[2]", "tags": ["y"]}, {"name": "b"}]""");
        string[] Names(TestPlanOptions options) => [.. TestPlan.Make([file], options with { Configure = Kernel("k") }).Select(test => test.Name)];
        Assert.Equal(["a[1]", "a[2]"], Names(new TestPlanOptions { Tags = ["x", "y"] }));
        Assert.Equal(["a[1]", "a[2]"], Names(new TestPlanOptions { Only = ["a*"] }));
        Assert.Equal(["a[2]", "b"], Names(new TestPlanOptions { Only = ["*2]", "b"] }));
        Assert.Equal(["a[1]"], Names(new TestPlanOptions { Only = ["a[1]"] }));
        VmmException e = Assert.Throws<VmmException>(() => Names(new TestPlanOptions { Only = ["c"] }));
        Assert.Contains("--list", e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("a*c", "abc", true)]
    [InlineData("a*c", "ac", true)]
    [InlineData("a*c", "ab", false)]
    [InlineData("ab*ba", "aba", false)]
    [InlineData("*", "", true)]
    [InlineData("a*b*c", "axbyc", true)]
    [InlineData("a*b*c", "axcyb", false)]
    public void A_star_stands_for_anything(string pattern, string name, bool matches) => Assert.Equal(matches, TestPlan.Matches(pattern, name));

    [Fact]
    public void A_directory_is_all_its_files_in_order()
    {
        Directory.CreateDirectory(Path.Combine(_folder, "sub"));
        File.WriteAllText(Path.Combine(_folder, "b.json"), "{}");
        File.WriteAllText(Path.Combine(_folder, "sub", "a.json"), "[{}, {}]");
        File.WriteAllText(Path.Combine(_folder, "c.txt"), "nothing");
        Assert.Equal(["b", "a-1", "a-2"], TestPlan.Make([_folder], new TestPlanOptions { Configure = Kernel("k") }).Select(test => test.Name));
    }

    [Theory]
    [InlineData("console=ttyS0", 1, "console=ttyS0 unknown_nmi_panic")]
    [InlineData("console=ttyS0 -- single", 1, "console=ttyS0 unknown_nmi_panic -- single")]
    [InlineData("", 2, "unknown_nmi_panic panic_print=0x40")]
    [InlineData("unknown_nmi_panic x", 2, "unknown_nmi_panic x")]
    public void Linux_is_told_to_answer_NMIs(string line, int cpus, string expected)
    {
        TestCase test = TestPlan.Make([], new TestPlanOptions { Configure = builder => Kernel("k")(builder.AddOption(PayloadConfig.CommandLineOption, line).AddOption(CpusConfig.Option, $"boot={cpus}")) })[0];
        Assert.Equal(expected, test.Config.Payload.CommandLine);
    }

    [Theory]
    [InlineData("{", "no JSON")]
    [InlineData("3", "an object")]
    [InlineData("""{"tests": {}}""", "a list")]
    [InlineData("""{"tests": [], "defualts": {}}""", "defualts")]
    [InlineData("""{"expct": "x"}""", "expect")]
    [InlineData("""{"expect": "("}""", "regular expression")]
    [InlineData("""{"expect": 3}""", "expect: it takes a list")]
    [InlineData("""{"steps": [{"wait": "a", "send": "b"}]}""", "steps[0]: a step either waits or sends")]
    [InlineData("""{"steps": [{"send": "b", "timeout": "1s"}]}""", "leave timeout out")]
    [InlineData("""{"timeout": "soon"}""", "60s")]
    [InlineData("""{"timeout": "0s"}""", "60s")]
    [InlineData("""{"timeout": null}""", "timeout")]
    [InlineData("""{"exit": "halt"}""", "poweroff")]
    [InlineData("""{"code": -1}""", "whole number")]
    [InlineData("""{"retries": 101}""", "0 to 100")]
    [InlineData("""{"vm": {"memory": {"size": "1X"}}}""", "size")]
    [InlineData("""{"vm": {"memmory": {}}}""", "memory")]
    [InlineData("""{"vm": []}""", "configuration")]
    [InlineData("""{"matrix": {"kernl": ["a"]}}""", "kernel")]
    [InlineData("""{"matrix": {"kernel": []}}""", "empty")]
    [InlineData("""{"matrix": {"x": [{}]}}""", "name")]
    [InlineData("""[{"name": "a"}, {"name": "a"}]""", "another test 'a'")]
    [InlineData("""{"name": "", "expect": "x"}""", "1 to 200")]
    [InlineData("""{"name": "a", "name": "b"}""", "twice")]
    [InlineData("""{"vm": {"serial": "null"}}""", "no console to watch")]
    [InlineData("""[]""", "no test")]
    public void What_is_wrong_is_said_with_its_place(string json, string part)
    {
        VmmException e = Assert.Throws<VmmException>(() => TestPlan.Make([Write(json)], new TestPlanOptions { Configure = Kernel("k") }));
        Assert.Equal(VmmErrorKind.Configuration, e.Kind);
        Assert.Contains(part, e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', e.Message);
    }

    [Fact]
    public void Nothing_but_its_own_error_comes_of_a_damaged_file()
    {
        const string good = """{"defaults": {"vm": {"payload": {"kernel": "k"}}, "timeout": "5m"}, "tests": [{"name": "a", "steps": [{"send": "x"}, {"wait": "y", "timeout": 3}], "matrix": {"cpus": ["boot=1", 2]}, "exit": ["poweroff"], "code": 3, "expect": ["a", "b"]}]}""";
        Gen<(int At, int Length, string With)> damage =
            from at in Gen.Choose(0, good.Length - 1)
            from length in Gen.Choose(0, 6)
            from text in Gen.Elements("", "{", "}", "[", "]", "\"", ",", ":", "null", "1e999", "\\u0000", "(", "vm", "9", "true")
            select (at, length, text);
        Prop.ForAll(damage.ToArbitrary(), one =>
        {
            string file = Write(good.Remove(one.At, Math.Min(one.Length, good.Length - one.At)).Insert(one.At, one.With));
            try
            {
                TestPlan.Make([file], new TestPlanOptions());
            }
            catch (VmmException)
            {
                // Its own.
            }
        }).QuickCheckThrowOnFailure();
    }

    [Theory]
    [InlineData("60s", 60)]
    [InlineData("500ms", 0.5)]
    [InlineData("2m", 120)]
    [InlineData("1h", 3600)]
    [InlineData("1.5", 1.5)]
    public void Times_are_read(string text, double seconds)
    {
        Assert.Equal(TimeSpan.FromSeconds(seconds), TimeLimit.Parse("t", text));
        Assert.Equal(TimeSpan.FromSeconds(seconds), TimeLimit.Parse("t", TimeLimit.Format(TimeSpan.FromSeconds(seconds))));
    }

    private static Action<VmConfigBuilder> Kernel(string path) => builder => builder.AddOption(PayloadConfig.KernelOption, path);

    private IReadOnlyList<TestCase> Read(string json) => TestPlan.Make([Write(json)], new TestPlanOptions());

    private string Write(string json)
    {
        string path = Path.Combine(_folder, "tests.json");
        File.WriteAllText(path, json);
        return path;
    }
}
