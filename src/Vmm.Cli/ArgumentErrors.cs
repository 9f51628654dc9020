using System.CommandLine;
using System.CommandLine.Parsing;
using Vmm.Machine.Configuration;

namespace Vmm.Cli;

/// <summary>Turns what the parser did not understand into one sentence that says what to do.</summary>
internal static class ArgumentErrors
{
    /// <summary>The first mistake of the arguments.</summary>
    internal static string Describe(ParseResult parsed)
    {
        Command command = parsed.CommandResult.Command;
        bool isRoot = command == parsed.RootCommandResult.Command;
        foreach (string token in parsed.UnmatchedTokens)
        {
            if (isRoot && !token.StartsWith('-'))
            {
                string[] commands = [.. CommandTree.Commands.Select(known => known.Name)];
                string hint = Suggestion.DidYouMean(token, commands);
                return $"there is no command {OptionGrammar.Show(token)}.{(hint.Length > 0 ? hint : $" There are {string.Join(", ", commands)}.")}";
            }

            if (token.StartsWith('-') && token.Length > 1)
                return UnknownOption(parsed, command, isRoot, token.Split('=')[0]);
            return $"{OptionGrammar.Show(token)} belongs to no option of vmm {command.Name}; every value comes after its option, as in --kernel PATH.";
        }

        if (isRoot)
            return "no command was given; try vmm run --kernel PATH, or vmm --help.";

        foreach (SymbolResult child in parsed.CommandResult.Children)
        {
            if (child is OptionResult { Implicit: false } option && option.Errors.Any())
            {
                return option.Tokens.Count == 0
                    ? $"{option.Option.Name} has no value; write {option.Option.Name} {option.Option.HelpName ?? "VALUE"}."
                    : $"{option.Option.Name} is given more than once; leave one of them out.";
            }
        }

        return command.Name == "completion"
            ? "no shell was named; write vmm completion bash, zsh or fish."
            : parsed.Errors[0].Message;
    }

    private static string UnknownOption(ParseResult parsed, Command command, bool isRoot, string token)
    {
        IEnumerable<Option> known = isRoot ? command.Options : command.Options.Concat(parsed.RootCommandResult.Command.Options.Where(option => option.Recursive));
        string hint = Suggestion.DidYouMean(token, known.Select(option => option.Name));
        string where = isRoot ? "vmm" : $"vmm {command.Name}";
        return $"{where} has no option {OptionGrammar.Show(token)}.{(hint.Length > 0 ? hint : $" See {where} --help.")}";
    }
}
