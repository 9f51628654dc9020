using System.Text.RegularExpressions;

namespace Vmm.Machine.Console;

/// <summary>Regular expressions for what guests write: matched in linear time, or given up where they cannot be.</summary>
public static class ConsolePattern
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(1);

    /// <summary>Makes a pattern. One with look-around or back-references is matched by searching, for a second at most on a line.</summary>
    /// <param name="pattern">In .NET's grammar.</param>
    /// <exception cref="ArgumentException">It is no pattern; the message says where.</exception>
    public static Regex Compile(string pattern)
    {
        ArgumentNullException.ThrowIfNull(pattern);
        try
        {
            return new Regex(pattern, RegexOptions.NonBacktracking | RegexOptions.CultureInvariant);
        }
        catch (NotSupportedException)
        {
            return new Regex(pattern, RegexOptions.CultureInvariant, s_patience);
        }
    }

    /// <summary>The first match at or after an index; null where there is none, or where searching for one took too long.</summary>
    public static Match? Match(Regex pattern, string text, int from = 0)
    {
        ArgumentNullException.ThrowIfNull(pattern);
        ArgumentNullException.ThrowIfNull(text);
        try
        {
            Match match = pattern.Match(text, from);
            return match.Success ? match : null;
        }
        catch (RegexMatchTimeoutException)
        {
            return null;
        }
    }
}
