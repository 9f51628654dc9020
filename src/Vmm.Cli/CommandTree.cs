using System.CommandLine;
using System.CommandLine.Parsing;
using Vmm.Machine.Configuration;

namespace Vmm.Cli;

/// <summary>
/// The commands and their options. Only the command that is called gets its options, and of those only the ones that are given: making all
/// of them would be most of the program's start.
/// </summary>
internal static class CommandTree
{
    internal const string VerboseName = "--verbose";
    internal const string ConfigName = "--config";
    internal const string JsonName = "--json";
    internal const string ShellName = "shell";

    /// <summary>What each command is for, in the order of the help.</summary>
    internal static readonly (string Name, string Help)[] Commands =
    [
        ("run", "Start a machine and stay with it until it ends."),
        ("test", "Boot guests and say whether they did what was expected of them."),
        (ExecCommand.Name, "Run one command in a guest kernel, on a directory or on this host's own tree."),
        ("check", "Tell what this host can do, and what to do where it cannot."),
        ("config", "Print the effective configuration as JSON that --config takes."),
        ("completion", "Print a completion script for bash, zsh or fish."),
        ("version", "Print the version."),
    ];

    /// <summary>Arguments mean what they say: no files of arguments (@file), no bundles (-vh).</summary>
    internal static readonly ParserConfiguration Parsing = new() { EnablePosixBundling = false, ResponseFileTokenReplacer = null };

    /// <summary>The tree for these arguments, or with every option when there are none to go by.</summary>
    internal static Command Build(string[]? args)
    {
        string? called = args is null ? null : Called(args);

        // Not a RootCommand: its own options and directives nobody asked for, and it looks their texts up in resources, by reflection, at
        // every start.
        var root = new Command("vmm", "Runs Linux guests on KVM.");
        root.Options.Add(Switch("--help", "Show this help.", "-h"));
        root.Options.Add(new Option<bool>("--version") { Description = "Print the version." });
        root.Options.Add(Switch(VerboseName, "Log what the program does (--log-level debug), and show details of errors.", "-v"));
        foreach ((string name, string help) in Commands)
        {
            var command = new Command(name, help);
            if (args is null || name == called)
                AddOptions(command, args);
            root.Subcommands.Add(command);
        }

        return root;
    }

    internal static bool IsVerbose(ParseResult parsed) => parsed.GetResult(VerboseName) is OptionResult { Implicit: false };

    internal static bool AsksForHelp(ParseResult parsed) => parsed.GetResult("--help") is OptionResult { Implicit: false };

    internal static bool AsksForVersion(ParseResult parsed) => parsed.GetResult("--version") is OptionResult { Implicit: false };

    /// <summary>Runs the command that was called.</summary>
    /// <param name="parsed">The arguments.</param>
    /// <param name="command">What is to be run in a guest, for <c>vmm exec</c>.</param>
    internal static int Execute(ParseResult parsed, string[] command) => parsed.CommandResult.Command.Name switch
    {
        "run" => RunCommand.Execute(Configuration(parsed)),
        "test" => TestCommand.Execute(parsed),
        ExecCommand.Name => ExecCommand.Execute(parsed, command),
        "check" => CheckCommand.Execute(json: parsed.GetResult(JsonName) is OptionResult { Implicit: false }),
        "config" => ConfigCommand.Execute(Configuration(parsed)),
        "completion" => CompletionCommand.Execute(parsed.GetValue<string>(ShellName)!),
        "version" => VersionCommand.Execute(),
        _ => throw Vmm.Core.VmmException.Configuration("no command was given; try vmm run --kernel PATH, or vmm --help."),
    };

    /// <summary>Command line over environment over file over defaults.</summary>
    /// <param name="parsed">The arguments.</param>
    /// <param name="defaults">Adds a command's own defaults; null for none.</param>
    internal static VmConfig Configuration(ParseResult parsed, Action<VmConfigBuilder>? defaults = null)
    {
        var builder = new VmConfigBuilder();
        defaults?.Invoke(builder);
        if (parsed.GetValue<string>(ConfigName) is { } path)
            builder.AddFile(path);
        builder.AddEnvironment();
        if (IsVerbose(parsed))
            builder.AddOption(LogConfig.LevelOption, "debug");
        foreach (OptionSchema option in VmConfig.Options)
        {
            if (Find(parsed.CommandResult.Command, option.Name) is not { } made || parsed.GetResult(made) is not { Implicit: false } result)
                continue;
            foreach (Token token in result.Tokens)
                builder.AddOption(option, token.Value);
        }

        return builder.Build();
    }

    private static void AddOptions(Command command, string[]? args)
    {
        switch (command.Name)
        {
            case "run" or "config" or ExecCommand.Name:
                Option[] own = command.Name == ExecCommand.Name ? [.. ExecCommand.Options] : [];
                foreach (Option option in own)
                    command.Options.Add(option);
                AddMachineOptions(command, every: args is null || !Array.TrueForAll(args, arg => IsKnown(arg) || Array.Exists(own, option => Names(arg, option.Name))), args);
                break;
            case "test":
                foreach ((string name, string? argument, bool repeats, string help) in TestCommand.Options)
                    command.Options.Add(Make(name, argument, repeats, help));
                command.Options.First(option => option.Name == "--jobs").Aliases.Add("-j");
                AddMachineOptions(command, every: true, args);
                command.Arguments.Add(new Argument<string[]>(TestCommand.FilesName)
                {
                    Description = "Files with tests, or directories of them; without any, the options describe one test.",
                    Arity = ArgumentArity.ZeroOrMore,
                });
                break;
            case "check":
                command.Options.Add(new Option<bool>(JsonName) { Description = "Print the report as JSON." });
                break;
            case "completion":
                command.Arguments.Add(new Argument<string>(ShellName) { Description = "bash, zsh or fish." });
                break;
        }
    }

    private static void AddMachineOptions(Command command, bool every, string[]? args)
    {
        foreach (OptionSchema option in VmConfig.Options)
        {
            if (every || Array.Exists(args!, arg => Names(arg, option.Name)))
                command.Options.Add(VmConfig.Repeats(option) ? Make<string[]>(option, ArgumentArity.OneOrMore) : Make<string>(option, ArgumentArity.ExactlyOne));
        }
        command.Options.Add(new Option<string>(ConfigName)
        {
            Description = "A configuration in JSON; options and VMM_* variables go before it.",
            HelpName = "PATH",
            Arity = ArgumentArity.ExactlyOne,
        });
    }

    private static Option Make(string name, string? argument, bool repeats, string help)
    {
        if (argument is null)
            return new Option<bool>(name) { Description = help, Arity = ArgumentArity.Zero };
        return repeats ? new Option<string[]>(name) { Description = help, HelpName = argument, Arity = ArgumentArity.OneOrMore, AllowMultipleArgumentsPerToken = false }
            : new Option<string>(name) { Description = help, HelpName = argument, Arity = ArgumentArity.ExactlyOne };
    }

    /// <summary>Whether an argument is no option, or one of a machine's; for the help and for errors all options have to be there.</summary>
    private static bool IsKnown(string arg) =>
        !arg.StartsWith('-') || Names(arg, ConfigName) || VmConfig.Options.Any(option => Names(arg, option.Name));

    private static Option? Find(Command command, string name)
    {
        foreach (Option option in command.Options)
        {
            if (option.Name == name)
                return option;
        }

        return null;
    }

    // --name VALUE, --name=VALUE or --name:VALUE.
    private static bool Names(string arg, string option) =>
        arg.StartsWith(option, StringComparison.Ordinal) && (arg.Length == option.Length || arg[option.Length] is '=' or ':');

    private static Option<T> Make<T>(OptionSchema option, ArgumentArity arity) =>
        new(option.Name) { Description = option.Help, HelpName = option.Argument, Arity = arity };

    private static Option<bool> Switch(string name, string help, string alias) =>
        new(name, alias) { Description = help, Recursive = true, Arity = ArgumentArity.Zero };

    internal static string? Called(string[] args)
    {
        foreach (string arg in args)
        {
            if (!arg.StartsWith('-'))
                return arg;
        }

        return null;
    }
}
