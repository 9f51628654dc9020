using System.CommandLine;
using System.Text;
using Vmm.Testing;

namespace Vmm.Cli;

/// <summary>The help of the program and of each command, made from the command tree, with examples.</summary>
internal static class HelpText
{
    private const string RunExamples =
        """
        Examples:
          vmm run --kernel vmlinuz --initramfs initramfs.cpio.gz --cmdline "console=ttyS0"
          vmm run --kernel vmlinuz --cpus boot=2 --memory size=512M --serial file=console.log
          vmm run --config vm.json --memory size=2G,hugepages=on
          VMM_MEMORY__SIZE=1G vmm run --kernel vmlinuz

        """;

    private const string TestExamples =
        """
        Examples:
          vmm test --kernel vmlinuz --initramfs initramfs.cpio.gz --cmdline "console=ttyS0" --expect "login:" --forbid "BUG:" --timeout 60s
          vmm test --kernel vmlinuz --initramfs i.cpio.gz --step 'wait=login:' --step 'send=root\n' --expect '# $' --hang 20s
          vmm test tests/ --jobs 4 --report dir=out,junit=out/junit.xml
          vmm test tests.json --matrix kernel=[bzImage-6.1,bzImage-6.12] --only 'boots*'

        """;

    private const string ExecExamples =
        """
        Examples:
          vmm exec --kernel vmlinuz -- uname -a
          vmm exec --kernel arch/x86/boot/bzImage --modules . -- make -C tools/testing/selftests/net run_tests
          vmm exec --kernel vmlinuz --rootfs /srv/tree --rw --cpus boot=4 --memory size=4G -- sh -c 'make -j4 && make install'
          tar c . | vmm exec --kernel vmlinuz --timeout 60 -- sha256sum

        Exit codes:
          the command's own
          124    the command did not end in time (--timeout)
          125    bad arguments, or the machine, the kernel or virtiofsd failed before the command ended
          126    the command cannot be executed
          127    there is no such command
          128+n  signal n ended the command, or vmm

        """;

    internal static int Show(ParseResult parsed)
    {
        Output.Write(For(parsed.CommandResult.Command, parsed.RootCommandResult.Command));
        return ExitCodes.Success;
    }

    internal static string For(Command command, Command root)
    {
        bool isRoot = command == root;
        var text = new StringBuilder();
        text.Append(command.Description).Append("\n\nUsage: ").Append(Usage(command, isRoot)).Append('\n');
        if (isRoot)
        {
            text.Append("\nCommands:\n");
            foreach (Command sub in root.Subcommands)
                text.Append($"  {sub.Name,-12}{sub.Description}\n");
        }

        text.Append("\nOptions:\n");
        IEnumerable<Option> options = isRoot ? root.Options : command.Options.Concat(root.Options.Where(option => option.Recursive));
        foreach (Option option in options)
        {
            string names = option.Aliases.Count > 0 ? $"{string.Join(", ", option.Aliases)}, {option.Name}" : option.Name;
            text.Append($"  {names} {option.HelpName}".TrimEnd()).Append("\n      ").Append(option.Description).Append('\n');
        }

        text.Append('\n').Append(Examples(command, isRoot));
        if (isRoot || command.Name == "run")
        {
            text.Append(isRoot ? "\nExit codes of vmm run:\n" : "\nExit codes:\n");
            foreach ((string code, string meaning) in ExitCodes.All)
                text.Append($"  {code,-7}{meaning}\n");
        }

        if (command.Name == "test")
        {
            text.Append("\nExit codes:\n");
            foreach ((Verdict verdict, string name, int code, string meaning) in Verdicts.All)
                text.Append($"  {code,-5}{name}: {meaning}\n");
            text.Append($"  2    bad arguments or test files; nothing was run\n  {Verdicts.DifferentFailures}   tests failed in different ways\n");
        }

        return text.ToString();
    }

    private static string Usage(Command command, bool isRoot) => isRoot ? "vmm COMMAND [OPTION...]" : command.Name switch
    {
        "completion" => "vmm completion bash|zsh|fish",
        "run" => "vmm run --kernel PATH [OPTION...]",
        "test" => "vmm test [FILE|DIRECTORY...] [OPTION...]",
        ExecCommand.Name => "vmm exec --kernel PATH [OPTION...] -- COMMAND [ARGUMENT...]",
        _ => $"vmm {command.Name} [OPTION...]",
    };

    private static string Examples(Command command, bool isRoot) => isRoot ? RunExamples + "\nvmm COMMAND --help tells more about a command.\n" : command.Name switch
    {
        "run" => RunExamples,
        "test" => TestExamples,
        ExecCommand.Name => ExecExamples,
        "check" => "Examples:\n  vmm check\n  vmm check --json\n",
        "config" => "Examples:\n  vmm config --kernel vmlinuz --memory size=1G > vm.json\n  vmm run --config vm.json\n",
        "completion" => "Examples:\n  vmm completion bash > /etc/bash_completion.d/vmm\n  vmm completion zsh > /usr/local/share/zsh/site-functions/_vmm\n" +
            "  vmm completion fish > ~/.config/fish/completions/vmm.fish\n",
        _ => "",
    };
}
