using System.CommandLine;
using System.Diagnostics;
using Vmm.Machine.Configuration;

namespace Vmm.Cli.Tests;

/// <summary>The arguments of <c>vmm exec</c>; what it runs is seen in guests (Vmm.Boot.Tests).</summary>
public sealed class ExecCommandTests
{
    private static readonly string s_program = Path.Combine(AppContext.BaseDirectory, "vmm");

    [Theory]
    [InlineData(new[] { "exec", "--kernel", "k", "--", "ls", "--", "-v" }, new[] { "exec", "--kernel", "k" }, new[] { "ls", "--", "-v" })]
    [InlineData(new[] { "-v", "exec", "--", "" }, new[] { "-v", "exec" }, new[] { "" })]
    [InlineData(new[] { "exec" }, new[] { "exec" }, new string[0])]
    [InlineData(new[] { "exec", "--" }, new[] { "exec" }, new string[0])]
    [InlineData(new[] { "run", "--", "exec" }, new[] { "run", "--", "exec" }, null)]
    [InlineData(new[] { "--", "exec" }, new[] { "--", "exec" }, null)]
    public void What_is_behind_the_dashes_is_the_commands(string[] arguments, string[] own, string[]? command)
    {
        string[] left = arguments;
        Assert.Equal(command, ExecCommand.TakeCommand(ref left));
        Assert.Equal(own, left);
    }

    [Theory]
    [InlineData("exec --kernel /etc/hostname", "there is no command")]
    [InlineData("exec -- true", "there is no kernel to run the command in")]
    [InlineData("exec --kernel /not/there -- true", "/not/there")]
    [InlineData("exec --kernle k -- true", "Did you mean --kernel?")]
    [InlineData("exec true", "belongs to no option of vmm exec")]
    [InlineData("exec --kernel k --rootfs /not/there -- true", "--rootfs: there is no directory '/not/there'")]
    [InlineData("exec --kernel k --initramfs i -- true", "--initramfs")]
    [InlineData("exec --kernel k --serial tty -- true", "--serial tty")]
    [InlineData("exec --kernel k --console tty -- true", "--console tty")]
    [InlineData("exec --kernel k --chdir relative -- true", "--chdir: 'relative' is no path from the root")]
    [InlineData("exec --kernel k --env =x -- true", "--env: '=x' names no variable")]
    [InlineData("exec --kernel k --sandbox cage -- true", "--sandbox: 'cage'")]
    [InlineData("exec --kernel k --timeout soon -- true", "--timeout: 'soon'")]
    [InlineData("exec --kernel k --timeout 0 -- true", "--timeout: '0'")]
    [InlineData("exec --kernel k --memory size=1 -- true", "--memory")]
    [InlineData("exec --kernel /etc/hostname --modules /etc -- true", "--modules: '/etc' has no modules.dep")]
    public void A_mistake_is_one_line_and_exit_code_125(string arguments, string expected)
    {
        var start = new ProcessStartInfo(s_program, arguments.Split(' ')) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true };
        using Process process = Process.Start(start)!;
        process.StandardInput.Close();
        string output = process.StandardOutput.ReadToEnd(), error = process.StandardError.ReadToEnd();
        Assert.True(process.WaitForExit(20_000));
        Assert.Equal(125, process.ExitCode);
        Assert.Equal("", output);
        Assert.StartsWith("vmm: ", error, StringComparison.Ordinal);
        Assert.Contains(expected, error, StringComparison.Ordinal);
        Assert.Equal(1, error.Count(letter => letter == '\n'));
    }

    [Fact]
    public void Its_defaults_give_way_to_what_is_asked_for()
    {
        var builder = new VmConfigBuilder();
        ExecCommand.AddDefaults(builder);
        VmConfig config = builder.Build();
        Assert.Equal(1UL << 30, config.Memory.Size);
        Assert.Equal(ConsoleBackend.Null, config.Serial.Backend);
        builder.AddOption(MemoryConfig.Option, "size=512M").AddOption(ConsoleConfig.SerialOption, "file=/tmp/x");
        config = builder.Build();
        Assert.Equal(512UL << 20, config.Memory.Size);
        Assert.Equal(ConsoleBackend.File, config.Serial.Backend);
    }

    [Fact]
    public void Every_option_of_its_own_is_on_its_page()
    {
        string folder = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(folder, "Vmm.sln")))
            folder = Path.GetDirectoryName(folder)!;
        string page = File.ReadAllText(Path.Combine(folder, "docs", "exec.md"));
        foreach (Option option in ExecCommand.Options)
            Assert.Contains(option.Name, page, StringComparison.Ordinal);
    }
}
