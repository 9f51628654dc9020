using System.Text.RegularExpressions;
using Vmm.Core;
using Vmm.Machine.Configuration;
using Vmm.Machine.Console;

namespace Vmm.Testing.Specification;

/// <summary>One step of a test: wait for a line that a pattern matches, or type something.</summary>
/// <param name="Wait">What to wait for; null for a step that types.</param>
/// <param name="Send">What to type, as it is (a line ends in <c>\n</c>); null for a step that waits.</param>
/// <param name="Timeout">How long to wait at most; null for as long as the test may take.</param>
public sealed record TestStep(Regex? Wait, string? Send, TimeSpan? Timeout = null)
{
    /// <summary>For people: <c>wait for /login: /</c>.</summary>
    public string Description => Wait != null ? $"wait for /{Wait}/" : $"send {OptionGrammar.Show(Send!)}";

    /// <summary>Makes a pattern, or says what is wrong with it.</summary>
    /// <exception cref="VmmException">It is none.</exception>
    public static Regex Pattern(string origin, string text)
    {
        try
        {
            return ConsolePattern.Compile(text);
        }
        catch (ArgumentException e)
        {
            throw VmmException.Configuration($"{origin}: {OptionGrammar.Show(text)} is no regular expression: {e.Message.ReplaceLineEndings(" ")}", e);
        }
    }

    /// <summary>Reads <c>wait=REGEX[,timeout=10s]</c> or <c>send=TEXT</c>.</summary>
    /// <exception cref="VmmException">It is neither.</exception>
    public static TestStep Parse(string origin, string text)
    {
        Regex? wait = null;
        string? send = null;
        TimeSpan? timeout = null;
        foreach (OptionField field in OptionGrammar.Parse(origin, text))
        {
            string value = field.Value ?? throw VmmException.Configuration($"{origin}: {field.Key} needs a value; write {field.Key}=TEXT.");
            switch (field.Key)
            {
                case "wait":
                    wait = Pattern(origin, value);
                    break;
                case "send":
                    send = Unescape(value);
                    break;
                case "timeout":
                    timeout = TimeLimit.Parse(origin, value);
                    break;
                default:
                    throw VmmException.Configuration($"{origin}: there is no key {OptionGrammar.Show(field.Key)}; there are wait, send and timeout.");
            }
        }
        return Make(origin, wait, send, timeout);
    }

    /// <summary>Makes a step of what was read.</summary>
    /// <exception cref="VmmException">It says neither, or both.</exception>
    public static TestStep Make(string origin, Regex? wait, string? send, TimeSpan? timeout)
    {
        if ((wait == null) == (send == null))
            throw VmmException.Configuration($"{origin}: a step either waits or sends; give it one of wait and send.");
        if (send != null && timeout != null)
            throw VmmException.Configuration($"{origin}: what is sent takes no time; leave timeout out, or give it to the step that waits for the answer.");
        return new TestStep(wait, send, timeout);
    }

    // On a command line there is no other way to write a line's end.
    private static string Unescape(string text) => text
        .Replace("\\r", "\r", StringComparison.Ordinal).Replace("\\n", "\n", StringComparison.Ordinal).Replace("\\t", "\t", StringComparison.Ordinal);
}
