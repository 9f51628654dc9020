using System.CommandLine;
using System.CommandLine.Parsing;
using Vmm.Core;
using Vmm.Exec;
using Vmm.Machine.Configuration;
using Vmm.Machine.Console;

namespace Vmm.Cli;

/// <summary>From arguments to an exit code: parses, runs a command, and turns every error into one line.</summary>
public static class CommandLine
{
    /// <summary>Runs the program.</summary>
    public static int Run(string[] args)
    {
        ArgumentNullException.ThrowIfNull(args);
        StandardStreams.Claim();
        bool verbose = false;
        string[]? command = ExecCommand.TakeCommand(ref args);
        try
        {
            Command root = CommandTree.Build(args);
            ParseResult parsed = root.Parse(args, CommandTree.Parsing);
            verbose = CommandTree.IsVerbose(parsed);
            if (CommandTree.AsksForHelp(parsed))
                return HelpText.Show(parsed);
            if (CommandTree.AsksForVersion(parsed))
                return VersionCommand.Execute();
            if (parsed.Errors.Count > 0)
                throw VmmException.Configuration(ArgumentErrors.Describe(parsed));
            return CommandTree.Execute(parsed, command ?? []);
        }
        catch (VmmException e)
        {
            TerminalMode.RestoreNow();
            Output.Error(e.Message);
            if (verbose)
                Output.Details(e.ToString());
            if (command != null)
                return ExecResult.Failed;
            return e.Kind == VmmErrorKind.Configuration ? ExitCodes.BadArguments : ExitCodes.HostError;
        }
        catch (Exception e)
        {
            TerminalMode.RestoreNow();
            string more = verbose ? "" : "; run with -v for details";
            Output.Error($"internal error: {OptionGrammar.Show(e.Message).Trim('\'')}{more}");
            if (verbose)
                Output.Details(e.ToString());
            return command != null ? ExecResult.Failed : ExitCodes.HostError;
        }
    }
}
