using System.CommandLine;
using System.Text;
using Vmm.Core;
using Vmm.Machine.Configuration;

namespace Vmm.Cli;

/// <summary><c>vmm completion</c>: scripts made from the command tree, so that they know what the program knows.</summary>
internal static class CompletionCommand
{
    internal static int Execute(string shell)
    {
        Output.Write(For(shell));
        return ExitCodes.Success;
    }

    internal static string For(string shell)
    {
        Command root = CommandTree.Build(null);
        return shell switch
        {
            "bash" => Bash(root),
            "zsh" => Zsh(root),
            "fish" => Fish(root),
            _ => throw VmmException.Configuration(
                $"there is no completion for {OptionGrammar.Show(shell)}.{Suggestion.DidYouMean(shell, ["bash", "zsh", "fish"])} There are bash, zsh and fish."),
        };
    }

    private static string Bash(Command root)
    {
        var text = new StringBuilder(
            """
            # bash completion for vmm, made by: vmm completion bash
            _vmm() {
                local cur prev words cword
                # Without "=" as a break, so that size=512M is one word.
                _get_comp_words_by_ref -n = cur prev words cword 2>/dev/null || { cur=${COMP_WORDS[COMP_CWORD]}; prev=${COMP_WORDS[COMP_CWORD-1]}; words=("${COMP_WORDS[@]}"); }
                local head=""
                case $prev in

            """);
        foreach (OptionSchema option in VmConfig.Options)
        {
            if (option.Words.Count == 0)
                text.Append($"        {option.Name}) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n");
            else
                text.Append($"        {option.Name}) [[ $cur == *,* ]] && head=${{cur%,*}},; COMPREPLY=($(compgen -P \"$head\" -W \"{string.Join(' ', option.Words)}\" -- \"${{cur##*,}}\")); compopt -o nospace 2>/dev/null; return ;;\n");
        }

        text.Append($"        {CommandTree.ConfigName}) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n");
        text.Append("    esac\n    case ${words[1]} in\n");
        foreach (Command command in root.Subcommands)
            text.Append($"        {command.Name}) COMPREPLY=($(compgen -W \"{string.Join(' ', Words(command, root))}\" -- \"$cur\")) ;;\n");
        text.Append($"        *) COMPREPLY=($(compgen -W \"{string.Join(' ', root.Subcommands.Select(command => command.Name))} {string.Join(' ', Names(root.Options))}\" -- \"$cur\")) ;;\n");
        return text.Append("    esac\n}\ncomplete -F _vmm vmm\n").ToString();
    }

    private static string Zsh(Command root)
    {
        var text = new StringBuilder("#compdef vmm\n# zsh completion for vmm, made by: vmm completion zsh\n_vmm() {\n  if (( CURRENT == 2 )); then\n    local -a commands=(\n");
        foreach (Command command in root.Subcommands)
            text.Append($"      '{command.Name}:{ForZsh(command.Description)}'\n");
        text.Append("    )\n    _describe command commands\n    return\n  fi\n  case $words[2] in\n");
        foreach (Command command in root.Subcommands)
        {
            text.Append($"    {command.Name})\n      _arguments");
            if (command.Name == "completion")
                text.Append(" \\\n        '2:shell:(bash zsh fish)'");
            foreach (Option option in Options(command, root))
            {
                string argument = option.HelpName is null ? "" : $":{ForZsh(option.HelpName)}:{ZshValues(option.Name)}";
                text.Append($" \\\n        '{option.Name}[{ForZsh(option.Description)}]{argument}'");
            }

            text.Append(" ;;\n");
        }

        return text.Append("  esac\n}\nif [ \"$funcstack[1]\" = _vmm ]; then _vmm \"$@\"; else compdef _vmm vmm; fi\n").ToString();
    }

    private static string Fish(Command root)
    {
        var text = new StringBuilder("# fish completion for vmm, made by: vmm completion fish\ncomplete -c vmm -f\n");
        foreach (Command command in root.Subcommands)
            text.Append($"complete -c vmm -n __fish_use_subcommand -a {command.Name} -d '{ForFish(command.Description)}'\n");
        foreach (Command command in root.Subcommands)
        {
            string when = $"-n '__fish_seen_subcommand_from {command.Name}'";
            if (command.Name == "completion")
                text.Append($"complete -c vmm {when} -a 'bash zsh fish'\n");
            foreach (Option option in Options(command, root))
            {
                string value = option.HelpName is null ? "" : WordsOf(option.Name) is { Count: > 0 } words ? $" -x -a '{string.Join(' ', words)}'" : " -r -F";
                text.Append($"complete -c vmm {when} -l {option.Name[2..]}{value} -d '{ForFish(option.Description)}'\n");
            }
        }

        return text.ToString();
    }

    private static IEnumerable<string> Words(Command command, Command root) =>
        command.Name == "completion" ? ["bash", "zsh", "fish"] : Names(Options(command, root));

    private static IEnumerable<Option> Options(Command command, Command root) => command.Options.Concat(root.Options.Where(option => option.Recursive));

    private static IEnumerable<string> Names(IEnumerable<Option> options) => options.Select(option => option.Name);

    private static IReadOnlyList<string>? WordsOf(string name) => VmConfig.Options.FirstOrDefault(option => option.Name == name)?.Words;

    private static string ZshValues(string name) => WordsOf(name) is { Count: > 0 } words ? $"({string.Join(' ', words)})" : "_files";

    private static string ForZsh(string? text) =>
        (text ?? "").Replace("'", "'\\''", StringComparison.Ordinal).Replace("[", "\\[", StringComparison.Ordinal)
            .Replace("]", "\\]", StringComparison.Ordinal).Replace(":", "\\:", StringComparison.Ordinal);

    private static string ForFish(string? text) => (text ?? "").Replace("'", "\\'", StringComparison.Ordinal);
}
