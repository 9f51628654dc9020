using System.Globalization;
using System.Text;

namespace Vmm.Testing.Reports;

/// <summary>
/// Text that a guest had its hand in, made fit to be shown: it makes no lines of its own, drives no terminal, and gives no orders to a CI
/// system that reads the log.
/// </summary>
internal static class GuestText
{
    private const char Replacement = '\uFFFD';

    /// <summary>One line of it: control characters are U+FFFD or, the white ones, blanks; what a CI system would take for a command is broken up.</summary>
    internal static string Line(string text) => Clean(text, keepLines: false).Replace("##[", "## [", StringComparison.Ordinal)
        .Replace("##vso[", "## vso[", StringComparison.Ordinal);

    /// <summary>Its lines, each as <see cref="Line"/> makes it, without empty ones at the end.</summary>
    internal static string[] Lines(string text)
    {
        string[] lines = text.ReplaceLineEndings("\n").TrimEnd('\n', ' ').Split('\n');
        if (lines is [""])
            return [];
        for (int i = 0; i < lines.Length; i++)
            lines[i] = Line(lines[i].TrimEnd());
        return lines;
    }

    /// <summary>Several lines as one text, for formats that escape by themselves; only what no format can hold is replaced.</summary>
    internal static string Block(string text) => Clean(text, keepLines: true);

    /// <summary>Cut to so many characters, with an ellipsis; never in the middle of a pair of surrogates.</summary>
    internal static string Cut(string line, int most)
    {
        if (line.Length <= most)
            return line;
        int end = Math.Max(0, most - 1);
        if (end > 0 && char.IsHighSurrogate(line[end - 1]))
            end--;
        return line[..end] + "…";
    }

    /// <summary>Cut in the middle where there are too many lines, and each line where it is too long, with notes that say so.</summary>
    internal static List<string> CutMiddle(string[] lines, int mostLines, int mostCharacters, string where)
    {
        var shown = new List<string>(Math.Min(lines.Length, mostLines + 1));
        int head = lines.Length <= mostLines ? lines.Length : mostLines / 2;
        int tail = lines.Length <= mostLines ? 0 : mostLines - head;
        foreach (string line in lines.AsSpan(0, head))
            shown.Add(Cut(line, mostCharacters));
        if (lines.Length <= mostLines)
            return shown;
        shown.Add(string.Create(CultureInfo.InvariantCulture, $"[{lines.Length - head - tail} lines left out{where}]"));
        foreach (string line in lines.AsSpan(lines.Length - tail))
            shown.Add(Cut(line, mostCharacters));
        return shown;
    }

    /// <summary>A time as people read it: <c>0.42 s</c>, <c>12.3 s</c>, <c>2 min 5 s</c>, <c>1 h 2 min</c>.</summary>
    internal static string Duration(TimeSpan time)
    {
        double seconds = Math.Max(0, time.TotalSeconds);
        return seconds switch
        {
            < 9.995 => string.Create(CultureInfo.InvariantCulture, $"{seconds:F2} s"),
            < 119.95 => string.Create(CultureInfo.InvariantCulture, $"{seconds:F1} s"),
            < 3600 => string.Create(CultureInfo.InvariantCulture, $"{(long)seconds / 60} min {(long)seconds % 60} s"),
            _ => string.Create(CultureInfo.InvariantCulture, $"{(long)seconds / 3600} h {(long)seconds % 3600 / 60} min"),
        };
    }

    /// <summary>A count and its noun.</summary>
    internal static string Count(int count, string noun) => string.Create(CultureInfo.InvariantCulture, $"{count} {noun}{(count == 1 ? "" : "s")}");

    /// <summary>How many results there are of each verdict, in the verdicts' own order: <c>9 pass, 1 panic</c>.</summary>
    internal static string Counts(IReadOnlyList<TestResult> results)
    {
        var counts = new List<string>();
        foreach ((Verdict verdict, string name, _, _) in Verdicts.All)
        {
            int count = results.Count(result => result.Verdict == verdict);
            if (count > 0)
                counts.Add(string.Create(CultureInfo.InvariantCulture, $"{count} {name}"));
        }

        return counts.Count == 0 ? "none ran" : string.Join(", ", counts);
    }

    /// <summary>What happened, in one line: the verdict, and the title where there is one.</summary>
    internal static string What(Verdict verdict, string title) => title.Length == 0 ? verdict.Name() : $"{verdict.Name()}: {Line(title)}";

    private static string Clean(string text, bool keepLines)
    {
        if (IsClean(text, keepLines))
            return text;
        var clean = new StringBuilder(text.Length);
        for (int i = 0; i < text.Length; i++)
        {
            char c = text[i];
            if (keepLines && c is '\n' or '\t')
                clean.Append(c);
            else if (c is '\t' or '\n' or '\r' or '\f' or '\v')
                clean.Append(keepLines && c == '\r' && i + 1 < text.Length && text[i + 1] == '\n' ? "" : " ");
            else if (IsBad(c))
                clean.Append(Replacement);
            else if (!char.IsSurrogate(c))
                clean.Append(c);
            else if (char.IsHighSurrogate(c) && i + 1 < text.Length && char.IsLowSurrogate(text[i + 1]))
                clean.Append(c).Append(text[++i]);
            else
                clean.Append(Replacement);
        }

        return clean.ToString();
    }

    private static bool IsClean(string text, bool keepLines)
    {
        foreach (char c in text)
        {
            if (char.IsSurrogate(c) || (IsBad(c) && !(keepLines && c is '\n' or '\t')))
                return false;
        }

        return true;
    }

    /// <summary>Control characters, those that end a line or turn its direction, and those that XML cannot hold.</summary>
    private static bool IsBad(char c) => char.IsControl(c) || c is '\u2028' or '\u2029' or (>= '\u202A' and <= '\u202E') or (>= '\u2066' and <= '\u2069') or '\uFFFE' or '\uFFFF';
}
