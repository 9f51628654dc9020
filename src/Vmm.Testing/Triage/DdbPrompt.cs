namespace Vmm.Testing.Triage;

/// <summary>The prompt of OpenBSD's ddb(4): <c>ddb> </c> with one CPU, <c>ddb{0}> </c> with more.</summary>
internal static class DdbPrompt
{
    /// <summary>More digits are no CPU's number.</summary>
    private const int MaximumDigits = 5;

    /// <summary>Whether an unfinished line ends in a prompt that waits.</summary>
    public static bool Waits(ReadOnlySpan<char> line) => line.EndsWith("> ") && TryParse(line, out _, out int end) && end == line.Length;

    /// <summary>Takes the first prompt in a line.</summary>
    /// <param name="line">A line, finished or not.</param>
    /// <param name="cpu">The CPU that ddb is on; -1 where it says none.</param>
    /// <param name="end">Where what was typed begins.</param>
    public static bool TryParse(ReadOnlySpan<char> line, out int cpu, out int end)
    {
        cpu = -1;
        end = 0;
        int at = Find(line);
        return at >= 0 && TryParseAt(line[at..], out cpu, out int length) && (end = at + length) > 0;
    }

    /// <summary>Whether a text may be the beginning of a prompt, and nothing else: where a console ends, it says nothing.</summary>
    public static bool IsStart(ReadOnlySpan<char> text) =>
        !text.IsEmpty && ("ddb".AsSpan().StartsWith(text) || (text.StartsWith("ddb{") && text[4..].TrimEnd('}').IndexOfAnyExceptInRange('0', '9') < 0 && text.Length <= 4 + MaximumDigits));

    /// <summary>Where the first prompt of a line begins; -1 where there is none.</summary>
    public static int Find(ReadOnlySpan<char> line)
    {
        for (int from = 0; ;)
        {
            int at = line[from..].IndexOf("ddb");
            if (at < 0)
                return -1;
            if (TryParseAt(line[(from + at)..], out _, out _))
                return from + at;
            from += at + 1;
        }
    }

    private static bool TryParseAt(ReadOnlySpan<char> text, out int cpu, out int length)
    {
        cpu = -1;
        length = 0;
        int i = 3;
        if (i < text.Length && text[i] == '{')
        {
            int start = ++i;
            cpu = 0;
            while (i < text.Length && char.IsAsciiDigit(text[i]) && i - start < MaximumDigits)
                cpu = (cpu * 10) + (text[i++] - '0');
            if (i == start || i >= text.Length || text[i] != '}')
                return false;
            i++;
        }

        if (!text[i..].StartsWith(">"))
            return false;
        // A log may have lost the blank at the end of a line.
        length = Math.Min(i + 2, text.Length);
        return length == i + 1 || text[i + 1] == ' ';
    }
}
