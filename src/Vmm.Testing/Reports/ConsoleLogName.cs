using System.Buffers;
using System.Globalization;
using System.Text;

namespace Vmm.Testing.Reports;

/// <summary>File names for tests' console logs.</summary>
public static class ConsoleLogName
{
    /// <summary>What a name may have at most, in characters, all of them ASCII; with its suffixes it stays below the 255 bytes of a file system.</summary>
    internal const int Longest = 120;

    private const int HashDigits = 16;

    private static readonly SearchValues<char> s_hexadecimal = SearchValues.Create("0123456789abcdef");
    private const string AttemptMark = ".attempt-";

    /// <summary>
    /// The file for an attempt at a test, as in <c>boots.console.log</c> and <c>boots.attempt-2.console.log</c>. Two different tests never have the same:
    /// a name that had to be changed, or that looks as if it had been, has a hash of the original.
    /// </summary>
    /// <param name="test">The test's name; any characters.</param>
    /// <param name="attempt">1 for the first.</param>
    public static string Of(string test, int attempt)
    {
        ArgumentNullException.ThrowIfNull(test);
        ArgumentOutOfRangeException.ThrowIfLessThan(attempt, 1);
        string name = Safe(test);
        return attempt == 1 ? $"{name}.console.log" : string.Create(CultureInfo.InvariantCulture, $"{name}{AttemptMark}{attempt}.console.log");
    }

    /// <summary>A name that is a file name everywhere, and in a shell without quotes.</summary>
    internal static string Safe(string test)
    {
        var name = new StringBuilder(Math.Min(test.Length, Longest));
        bool asItIs = test.Length is > 0 and <= Longest && test[0] is not ('.' or '-') && !HasHash(test) && !test.Contains(AttemptMark, StringComparison.Ordinal);
        foreach (char c in test)
        {
            bool good = char.IsAsciiLetterOrDigit(c) || c is '.' or '_' or '-' or '+' or '=' or ',' or '@';
            asItIs &= good;
            if (name.Length < Longest - HashDigits - 1)
                name.Append(good ? c : '_');
        }

        if (asItIs)
            return test;
        if (name.Length == 0)
            name.Append('_');
        else if (name[0] is '.' or '-')
            name[0] = '_';

        return string.Create(CultureInfo.InvariantCulture, $"{name}-{Hash(test):x16}");
    }

    /// <summary>FNV-1a of the UTF-16 as it is (halves of pairs too), mixed once more. Those of System.Security.Cryptography need OpenSSL, which small hosts have not.</summary>
    private static ulong Hash(string text)
    {
        ulong hash = 0xcbf2_9ce4_8422_2325;
        foreach (char c in text)
        {
            hash = (hash ^ (byte)c) * 0x100_0000_01b3;
            hash = (hash ^ (byte)(c >> 8)) * 0x100_0000_01b3;
        }

        hash = (hash ^ (hash >> 32)) * 0x9e37_79b9_7f4a_7c15;
        return hash ^ (hash >> 29);
    }

    /// <summary>Whether it ends as a name with a hash does.</summary>
    private static bool HasHash(string test) =>
        test.Length > HashDigits && test[^(HashDigits + 1)] == '-' && !test.AsSpan(test.Length - HashDigits).ContainsAnyExcept(s_hexadecimal);
}
