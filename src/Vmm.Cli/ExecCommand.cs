using System.Collections;
using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using Vmm.Core;
using Vmm.Exec;
using Vmm.Machine;
using Vmm.Machine.Configuration;
using Vmm.Machine.Console;
using Vmm.Machine.Logging;

namespace Vmm.Cli;

/// <summary><c>vmm exec</c>: runs one command in a guest and ends with its exit code.</summary>
internal static class ExecCommand
{
    internal const string Name = "exec";

    private const string RootName = "--rootfs", WritableName = "--rw", DirectoryName = "--chdir", VariableName = "--env", AllVariablesName = "--env-all",
        ModulesName = "--modules", ProgramName = "--virtiofsd", SandboxName = "--sandbox", TimeoutName = "--timeout";

    private static readonly (string Word, ShareSandbox Value)[] s_sandboxes =
        [("none", ShareSandbox.None), ("namespace", ShareSandbox.Namespace), ("chroot", ShareSandbox.Chroot)];

    /// <summary>The options that only this command has; those of <c>vmm run</c> come after them.</summary>
    internal static IEnumerable<Option> Options =>
    [
        new Option<string>(RootName)
        {
            Description = "The guest's root: a directory, or host for this host's own tree, which stays as it is. Default: host.",
            HelpName = "DIR|host", Arity = ArgumentArity.ExactlyOne,
        },
        new Option<bool>(WritableName) { Description = "Writes go to the directory. Without it they are in the guest's memory, and gone with it.", Arity = ArgumentArity.Zero },
        new Option<string>(DirectoryName)
        {
            Description = "Where in the guest's tree the command begins. Default: where vmm was started, or / where the guest has no such directory.",
            HelpName = "DIR", Arity = ArgumentArity.ExactlyOne,
        },
        new Option<string[]>(VariableName)
        {
            Description = "A variable for the command, or the name of one of vmm's own. Give it once for each. There are PATH, HOME, TERM, LANG, SHELL, USER and LOGNAME without it.",
            HelpName = "NAME[=VALUE]", Arity = ArgumentArity.OneOrMore,
        },
        new Option<bool>(AllVariablesName) { Description = "The command gets all variables of vmm's own environment.", Arity = ArgumentArity.Zero },
        new Option<string>(ModulesName)
        {
            Description = "The kernel's modules. Default: lib/modules/RELEASE of the root, else of the host; without any, the kernel has to have all in itself.",
            HelpName = "DIR", Arity = ArgumentArity.ExactlyOne,
        },
        new Option<string>(ProgramName) { Description = "virtiofsd's program. Default: from PATH, /usr/libexec or /usr/lib.", HelpName = "PATH", Arity = ArgumentArity.ExactlyOne },
        new Option<string>(SandboxName)
        {
            Description = "How virtiofsd confines itself. Default: chroot for root, none for others.", HelpName = "none|namespace|chroot", Arity = ArgumentArity.ExactlyOne,
        },
        new Option<string>(TimeoutName) { Description = "Ends the machine after so many seconds, with exit code 124.", HelpName = "SECONDS", Arity = ArgumentArity.ExactlyOne },
    ];

    /// <summary>Takes what is behind <c>--</c> from the arguments of this command: those are not ours to understand.</summary>
    /// <param name="args">All arguments; what is left of them when it returns.</param>
    /// <returns>The command and its arguments; null where this is another command.</returns>
    internal static string[]? TakeCommand(ref string[] args)
    {
        int at = Array.IndexOf(args, "--");
        string[] own = at < 0 ? args : args[..at];
        if (CommandTree.Called(own) != Name)
            return null;
        string[] command = at < 0 ? [] : args[(at + 1)..];
        args = own;
        return command;
    }

    /// <summary>What a machine has here where nobody says otherwise.</summary>
    internal static void AddDefaults(VmConfigBuilder builder)
    {
        builder.AddText(MemoryConfig.Section, "vmm exec", "size=1G");
        builder.AddText(ConsoleConfig.SerialSection, "vmm exec", "null");
    }

    /// <summary>Runs the command.</summary>
    /// <exception cref="VmmException">The machine cannot be made or run.</exception>
    internal static int Execute(ParseResult parsed, string[] command)
    {
        VmConfig config = CommandTree.Configuration(parsed, AddDefaults);
        ExecOptions options = OptionsOf(parsed, command);
        using VmLog log = VmLog.Open(config.Log);
        CommandRun? made = null;
        using var cancel = new CancellationTokenSource();
        using var signals = new TerminationSignals(number =>
        {
            cancel.Cancel();
            Volatile.Read(ref made)?.Stop(RunCommand.EndedBy(number));
        });
        try
        {
            made = new CommandRun(config, options, new RunCommand.Narrator(log), log.Debug, cancel.Token);
        }
        catch (OperationCanceledException)
        {
            Output.Error(RunCommand.EndedBy(signals.Received));
            return ExitCodes.Signal(signals.Received);
        }
        using CommandRun run = made;
        // The signal may have come when it was made and not known yet.
        Interlocked.MemoryBarrier();
        if (cancel.IsCancellationRequested)
            run.Stop(RunCommand.EndedBy(signals.Received));
        ExecResult result = run.Run();
        if (signals.Received != 0)
        {
            Output.Error(RunCommand.EndedBy(signals.Received));
            return ExitCodes.Signal(signals.Received);
        }
        if (result.Message is { Length: > 0 } message)
            Output.Error(message);
        if (result.Details is { Length: > 0 } details && (result.IsDetailed || CommandTree.IsVerbose(parsed)))
            Output.Details(details.TrimEnd());
        return result.Code;
    }

    private static ExecOptions OptionsOf(ParseResult parsed, string[] command)
    {
        string root = parsed.GetValue<string>(RootName) ?? "host";
        string? directory = parsed.GetValue<string>(DirectoryName);
        if (directory is not null && !directory.StartsWith('/'))
            throw VmmException.Configuration($"{DirectoryName}: {OptionGrammar.Show(directory)} is no path from the root; begin it with a slash.");
        return new ExecOptions
        {
            Root = root == "host" ? "/" : root,
            IsWritable = IsGiven(parsed, WritableName),
            Command = command,
            Environment = EnvironmentOf(parsed),
            Directory = directory ?? Environment.CurrentDirectory,
            IsDirectoryNeeded = directory is not null,
            Modules = parsed.GetValue<string>(ModulesName),
            Virtiofsd = parsed.GetValue<string>(ProgramName),
            Sandbox = SandboxOf(parsed.GetValue<string>(SandboxName)),
            Timeout = TimeoutOf(parsed.GetValue<string>(TimeoutName)),
            IsVerbose = CommandTree.IsVerbose(parsed),
            InputDescriptor = StandardStreams.IsMissing(0) ? -1 : 0,
            OutputDescriptor = StandardStreams.IsMissing(1) ? -1 : 1,
            ErrorDescriptor = StandardStreams.IsMissing(2) ? -1 : 2,
        };
    }

    private static bool IsGiven(ParseResult parsed, string name) => parsed.GetResult(name) is OptionResult { Implicit: false };

    private static IReadOnlyList<string> EnvironmentOf(ParseResult parsed)
    {
        var variables = new SortedDictionary<string, string>(StringComparer.Ordinal)
        {
            ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ["HOME"] = "/root",
            ["USER"] = "root",
            ["LOGNAME"] = "root",
            ["SHELL"] = "/bin/sh",
            ["TERM"] = Environment.GetEnvironmentVariable("TERM") ?? "dumb",
            ["LANG"] = Environment.GetEnvironmentVariable("LANG") ?? "C.UTF-8",
        };
        if (IsGiven(parsed, AllVariablesName))
        {
            foreach (DictionaryEntry variable in Environment.GetEnvironmentVariables())
                variables[(string)variable.Key] = (string)variable.Value!;
        }
        foreach (string asked in parsed.GetValue<string[]>(VariableName) ?? [])
        {
            int equals = asked.IndexOf('=', StringComparison.Ordinal);
            string name = equals < 0 ? asked : asked[..equals];
            if (name.Length == 0)
                throw VmmException.Configuration($"{VariableName}: {OptionGrammar.Show(asked)} names no variable; write NAME=VALUE, or NAME for one of vmm's own.");
            if (equals >= 0)
                variables[name] = asked[(equals + 1)..];
            else if (Environment.GetEnvironmentVariable(name) is { } own)
                variables[name] = own;
            else
                variables.Remove(name);
        }
        return [.. variables.Select(variable => $"{variable.Key}={variable.Value}")];
    }

    private static ShareSandbox SandboxOf(string? word)
    {
        if (word is null)
            return ShareSandbox.Auto;
        int at = Array.FindIndex(s_sandboxes, one => one.Word == word);
        return at >= 0 ? s_sandboxes[at].Value
            : throw VmmException.Configuration($"{SandboxName}: {OptionGrammar.Show(word)} is no way to confine virtiofsd; there are none, namespace and chroot.");
    }

    private static TimeSpan? TimeoutOf(string? text)
    {
        if (text is null)
            return null;
        const double most = 1_000_000;
        return double.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double seconds) && seconds is > 0 and <= most
            ? TimeSpan.FromSeconds(seconds)
            : throw VmmException.Configuration($"{TimeoutName}: {OptionGrammar.Show(text)} is no number of seconds; write one above 0, at most {most:F0}.");
    }
}
