using System.Diagnostics;
using System.Text.RegularExpressions;
using Vmm.Sandbox;

namespace Vmm.Boot.Tests.Ci;

/// <summary>The files of ci/ name only what is there.</summary>
public sealed partial class CiFilesTests
{
    private static readonly string s_ci = Path.Combine(SandboxImage.RepositoryDirectory, "ci");
    private static readonly string s_action = File.ReadAllText(Path.Combine(s_ci, "github", "action.yml"));
    private static readonly string s_template = File.ReadAllText(Path.Combine(s_ci, "gitlab", "vmm-test.yml"));
    private static readonly string s_test = File.ReadAllText(Path.Combine(s_ci, "lib", "test.sh"));
    private static readonly string s_scripts = string.Concat(Directory.GetFiles(Path.Combine(s_ci, "lib")).Select(File.ReadAllText));

    public static TheoryData<string> Scripts => [.. Directory.GetFiles(Path.Combine(s_ci, "lib"), "*.sh").Select(path => Path.GetFileName(path)).Order()];

    [Theory]
    [MemberData(nameof(Scripts))]
    public void A_script_is_one_for_any_posix_shell(string script) => Succeeds("/bin/dash", ["-n", Path.Combine(s_ci, "lib", script)]);

    [SkippableFact]
    public void Shellcheck_has_nothing_to_say()
    {
        const string program = "/usr/bin/shellcheck";
        Skip.IfNot(File.Exists(program), "shellcheck is not installed");
        Succeeds(program, ["-x", "-P", "SCRIPTDIR", "-s", "sh", .. Directory.GetFiles(Path.Combine(s_ci, "lib"), "*.sh")]);
    }

    [Fact]
    public void Every_script_that_is_called_is_there_and_can_be()
    {
        string[] called = [.. ScriptPattern().Matches(s_action + s_template).Select(match => match.Groups[1].Value).Distinct().Order()];
        Assert.Equal(["kvm.sh", "test.sh", "vmm.sh"], called);
        Assert.All(called, script => Assert.True(File.GetUnixFileMode(Path.Combine(s_ci, "lib", script)).HasFlag(UnixFileMode.UserExecute | UnixFileMode.OtherExecute), script));
        Assert.True(File.Exists(Path.Combine(s_ci, "github", "..", "lib", "test.sh")));
    }

    [Fact]
    public void Every_input_of_the_action_is_used_and_every_one_that_is_used_is_there()
    {
        string[] inputs = Keys(Section(s_action, "inputs"), 2);
        Assert.True(inputs.Length > 10);
        Assert.Equal(inputs.Order(), InputPattern().Matches(Section(s_action, "outputs") + Section(s_action, "runs")).Select(match => match.Groups[1].Value).Distinct().Order());

        // An expression in a line for the shell would be a place for injection: there is none.
        Assert.DoesNotContain(s_action.Split('\n'), line => line.TrimStart().StartsWith("run:", StringComparison.Ordinal) && line.Contains("${{", StringComparison.Ordinal));
    }

    [Fact]
    public void Every_output_of_a_step_is_written_by_its_script()
    {
        (string Step, string Output)[] used = [.. OutputPattern().Matches(s_action).Select(match => (match.Groups[1].Value, match.Groups[2].Value)).Distinct()];
        Assert.True(used.Length >= 6);
        foreach ((string step, string output) in used)
        {
            Assert.Contains($"      id: {step}\n", s_action, StringComparison.Ordinal);
            Assert.Contains($"output {output} ", File.ReadAllText(Path.Combine(s_ci, "lib", $"{step}.sh")), StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Every_variable_is_one_that_the_scripts_know()
    {
        string[] known = [.. VariablePattern().Matches(s_scripts).Select(match => match.Value).Distinct()];
        string[] given = [.. GivenPattern().Matches(Section(s_action, "runs")).Select(match => match.Groups[1].Value).Where(name => name.StartsWith("VMM_", StringComparison.Ordinal))];
        Assert.Equal(11, given.Length);
        Assert.All(given, name => Assert.Contains(name, known));

        // What ci/lib/test.sh takes, both give.
        string[] documented = [.. VariablePattern().Matches(s_test[..s_test.IndexOf("set -eu", StringComparison.Ordinal)]).Select(match => match.Value).Distinct()];
        Assert.All(documented, name => Assert.Contains(name, given));
        string[] variables = [.. GivenPattern().Matches(s_template).Select(match => match.Groups[1].Value)];
        Assert.All(documented, name => Assert.Contains(name, variables));

        // vmm would take them for parts of its configuration.
        string forgotten = s_test[s_test.IndexOf("    unset ", StringComparison.Ordinal)..];
        string[] unset = [.. VariablePattern().Matches(forgotten[..forgotten.IndexOf("run ", StringComparison.Ordinal)]).Select(match => match.Value)];
        Assert.All(variables.Concat(given), name => Assert.Contains(name, unset));
        string lines = string.Join('\n', s_template.Split('\n').Where(line => line.TrimStart().StartsWith('-')));
        Assert.All(variables, name => Assert.True(known.Contains(name) || lines.Contains("$" + name, StringComparison.Ordinal), name));
        Assert.All(VariablePattern().Matches(lines).Select(match => match.Value), name => Assert.Contains(name, variables));
    }

    [Fact]
    public void The_documentation_names_every_input_and_variable()
    {
        string page = File.ReadAllText(Path.Combine(SandboxImage.RepositoryDirectory, "docs", "ci.md"));
        Assert.All(Keys(Section(s_action, "inputs"), 2), name => Assert.Contains($"`{name}`", page, StringComparison.Ordinal));
        Assert.All(GivenPattern().Matches(s_template).Select(match => match.Groups[1].Value), name => Assert.Contains($"`{name}`", page, StringComparison.Ordinal));
    }

    [SkippableFact]
    public void A_yaml_parser_reads_both()
    {
        Skip.IfNot(Run("python3", ["-c", "import yaml"]).ExitCode == 0, "python3 has no yaml module");
        (int code, string output) = Run("python3", ["-c", """
            import sys, yaml
            action = yaml.safe_load(open(sys.argv[1]))
            steps = action['runs']['steps']
            assert action['runs']['using'] == 'composite'
            assert all(('run' in step) == ('shell' in step) and ('run' in step) != ('uses' in step) for step in steps), steps
            assert all(isinstance(one.get('default'), str) and one['description'] for one in action['inputs'].values())
            job = yaml.safe_load(open(sys.argv[2]))['.vmm-test']
            assert all(isinstance(line, str) for line in job['script'] + job['before_script']), job
            assert all(isinstance(value, str) for value in job['variables'].values()), job
            assert job['artifacts']['when'] == 'always'
            """, Path.Combine(s_ci, "github", "action.yml"), Path.Combine(s_ci, "gitlab", "vmm-test.yml")]);
        Assert.True(code == 0, output);
    }

    [GeneratedRegex("/lib/([a-z]+\\.sh)")]
    private static partial Regex ScriptPattern();

    [GeneratedRegex("inputs\\.([a-z0-9-]+)")]
    private static partial Regex InputPattern();

    [GeneratedRegex("steps\\.([a-z]+)\\.outputs\\.([a-z-]+)")]
    private static partial Regex OutputPattern();

    [GeneratedRegex("VMM_[A-Z0-9_]+")]
    private static partial Regex VariablePattern();

    [GeneratedRegex("^ +([A-Z][A-Z0-9_]+): ", RegexOptions.Multiline)]
    private static partial Regex GivenPattern();

    /// <summary>The lines below a key of the first level.</summary>
    private static string Section(string yaml, string key)
    {
        IEnumerable<string> after = yaml.Split('\n').SkipWhile(line => line != key + ":").Skip(1);
        return string.Join('\n', after.TakeWhile(line => line.Length == 0 || line[0] == ' ')) + "\n";
    }

    private static string[] Keys(string section, int indentation) =>
        [.. section.Split('\n').Where(line => line.Length > indentation && line[..indentation].Trim().Length == 0 && line[indentation] != ' ').Select(line => line.Trim().TrimEnd(':'))];

    private static void Succeeds(string program, string[] arguments)
    {
        (int code, string output) = Run(program, arguments);
        Assert.True(code == 0, output);
    }

    private static (int ExitCode, string Output) Run(string program, string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments) { WorkingDirectory = SandboxImage.RepositoryDirectory, RedirectStandardOutput = true, RedirectStandardError = true })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd() + errors.Result;
        process.WaitForExit();
        return (process.ExitCode, output);
    }
}
