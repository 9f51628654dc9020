using System.Diagnostics;

namespace Vmm.Cli.Tests;

/// <summary>The program as a user has it: arguments in; exit code, output and one line of error out.</summary>
public sealed class CommandLineTests
{
    private static readonly string s_program = Path.Combine(AppContext.BaseDirectory, "vmm");

    [Theory]
    [InlineData("", "no command was given")]
    [InlineData("rnu", "Did you mean run?")]
    [InlineData("run", "there is no kernel to start")]
    [InlineData("run --memroy size=1G", "Did you mean --memory?")]
    [InlineData("run --memroy=size=1G", "Did you mean --memory?")]
    [InlineData("run --kernel", "--kernel has no value")]
    [InlineData("run --kernel a --kernel b", "--kernel is given more than once")]
    [InlineData("run kernel", "belongs to no option of vmm run")]
    [InlineData("run --kernel k --cpus boot=0", "--cpus: 'boot=0' is out of range")]
    [InlineData("config --config /nowhere/vm.json", "cannot read '/nowhere/vm.json'")]
    [InlineData("config @/etc/passwd", "belongs to no option")]
    [InlineData("completion", "no shell was named")]
    [InlineData("completion bsh", "Did you mean bash?")]
    [InlineData("check --jsn", "Did you mean --json?")]
    [InlineData("version now", "belongs to no option")]
    public void A_mistake_is_one_line_and_exit_code_2(string arguments, string expected)
    {
        (int code, string output, string error) = Run(arguments);
        Assert.Equal(ExitCodes.BadArguments, code);
        Assert.Equal("", output);
        Assert.StartsWith("vmm: ", error, StringComparison.Ordinal);
        Assert.Contains(expected, error, StringComparison.Ordinal);
        Assert.Equal(1, error.Count(c => c == '\n'));
    }

    [Theory]
    [InlineData("--help", "Commands:")]
    [InlineData("-h", "128+n")]
    [InlineData("run --help", "--memory size=SIZE")]
    [InlineData("run -h", "Exit codes:")]
    [InlineData("check --help", "--json")]
    [InlineData("--version", "vmm 0.")]
    [InlineData("version", "vmm 0.")]
    public void What_is_asked_for_is_printed(string arguments, string expected)
    {
        (int code, string output, string error) = Run(arguments);
        Assert.Equal(ExitCodes.Success, code);
        Assert.Contains(expected, output, StringComparison.Ordinal);
        Assert.Equal("", error);
    }

    [Fact]
    public void What_config_prints_config_takes()
    {
        string file = Path.GetTempFileName();
        try
        {
            (int code, string first, _) = Run("config --kernel k --memory size=1G,prefault=on --serial socket=/tmp/s --log-level debug");
            Assert.Equal(0, code);
            File.WriteAllText(file, first);
            (_, string second, string error) = Run($"config --config {file}");
            Assert.Equal("", error);
            Assert.Equal(first, second);
            Assert.Contains("\"1G\"", second, StringComparison.Ordinal);
        }
        finally
        {
            File.Delete(file);
        }
    }

    [Theory]
    [InlineData("version >&-", "vmm: cannot write to standard output: Bad file descriptor.\n")]
    [InlineData("run --help > /dev/full", "vmm: cannot write to standard output: No space left on device.\n")]
    [InlineData("config >&- 2>&-", "")]
    public void A_closed_output_is_exit_code_1_and_one_line(string shell, string expected)
    {
        using Process process = Start("/bin/bash", ["-c", $"'{s_program}' {shell}"]);
        string error = process.StandardError.ReadToEnd();
        Assert.True(process.WaitForExit(20_000));
        Assert.Equal(ExitCodes.HostError, process.ExitCode);
        Assert.Equal(expected, error);
    }

    [Fact]
    public void A_broken_pipe_is_exit_code_1()
    {
        using Process process = Start("/bin/bash", ["-c", $"(sleep 0.3; '{s_program}' --help; echo $? >&2) | true"]);
        string error = process.StandardError.ReadToEnd();
        Assert.True(process.WaitForExit(20_000));
        Assert.Equal("vmm: cannot write to standard output: Broken pipe.\n1\n", error);
    }

    [Fact]
    public void Bash_takes_the_completion_and_offers_options_and_values()
    {
        string script = Cli("completion bash").Output;
        string Complete(string words, int at)
        {
            string file = Path.GetTempFileName();
            File.WriteAllText(file, $"{script}\nCOMP_WORDS=({words}); COMP_CWORD={at}; _vmm 2>/dev/null; echo \"${{COMPREPLY[@]}}\"\n");
            using Process bash = Start("/bin/bash", [file]);
            string offered = bash.StandardOutput.ReadToEnd();
            bash.WaitForExit();
            File.Delete(file);
            return offered.Trim();
        }

        Assert.Equal("run", Complete("vmm r", 1));
        Assert.Equal("--memory", Complete("vmm run --mem", 2));
        Assert.Contains("hugepage_size=1G", Complete("vmm run --memory huge", 3), StringComparison.Ordinal);
        Assert.Equal("bash zsh fish", Complete("vmm completion ''", 2));
    }

    [Theory]
    [InlineData("zsh", "#compdef vmm")]
    [InlineData("fish", "complete -c vmm")]
    public void The_other_shells_have_every_option(string shell, string head)
    {
        string script = Cli($"completion {shell}").Output;
        Assert.Contains(head, script, StringComparison.Ordinal);
        foreach (Machine.Configuration.OptionSchema option in Machine.Configuration.VmConfig.Options)
            Assert.Contains(option.Name[2..], script, StringComparison.Ordinal);
    }

    [Fact]
    public void Exit_codes_are_documented_as_they_are()
    {
        string text = File.ReadAllText(Path.Combine(Root(), "docs", "exit-codes.md"));
        foreach ((string code, _) in ExitCodes.All)
            Assert.Contains($"| {code} |", text, StringComparison.Ordinal);
        Assert.Equal(143, ExitCodes.Signal(15));
    }

    [Fact]
    public void Every_option_is_in_the_manual()
    {
        string text = File.ReadAllText(Path.Combine(Root(), "docs", "cli.md"));
        foreach (Machine.Configuration.OptionSchema option in Machine.Configuration.VmConfig.Options)
            Assert.Contains($"`{option.Name}`", text, StringComparison.Ordinal);
    }

    private static string Root()
    {
        string folder = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(folder, "Vmm.sln")))
            folder = Path.GetDirectoryName(folder)!;
        return folder;
    }

    private static (int Code, string Output, string Error) Cli(string arguments) => Run(arguments);

    private static (int Code, string Output, string Error) Run(string arguments)
    {
        using Process process = Start(s_program, arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries));
        string output = process.StandardOutput.ReadToEnd();
        string error = process.StandardError.ReadToEnd();
        Assert.True(process.WaitForExit(20_000));
        return (process.ExitCode, output, error);
    }

    private static Process Start(string program, IEnumerable<string> arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false };
        return Process.Start(start)!;
    }
}
