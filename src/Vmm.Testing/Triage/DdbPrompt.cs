namespace Vmm.Testing.Triage;

/// <summary>The prompt of OpenBSD's ddb(4): <c>ddb> </c> with one CPU, <c>ddb{0}> </c> with more.</summary>
internal static class DdbPrompt
{
    /// <summary>More digits are no CPU's number.</summary>
    private const int MaximumDigits = 5;

    /// <summary>Whether an unfinished line ends in a prompt that waits.</summary>
    public static bool Waits(ReadOnlySpan<char> line) => line.EndsWith("> ") && TryParse(line, out _, out int end) && end == line.Length;

    /// <summary>Takes the last prompt in a line.</summary>
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

    /// <summary>Where the last prompt of a line begins; -1 where there is none.</summary>
    public static int Find(ReadOnlySpan<char> line)
    {
        for (int end = line.Length; ;)
        {
            int at = line[..end].LastIndexOf("ddb");
            if (at < 0 || TryParseAt(line[at..], out _, out _))
                return at;
            end = at + 2;
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
