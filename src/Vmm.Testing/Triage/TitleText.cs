using System.Text;

namespace Vmm.Testing.Triage;

/// <summary>Makes titles the same from run to run: what differs between two runs of one bug is replaced by its name.</summary>
internal static class TitleText
{
    /// <summary>The longest title, in characters.</summary>
    internal const int MaximumLength = 120;

    /// <summary>Where a message of the kernel may run on without saying anything more for a title.</summary>
    private const int MaximumInput = 1024;

    /// <summary>The only numbers that are kept: which root device was not there is the cause, and differs only where the cause does.</summary>
    private const string KeptNumbers = "unknown-block(";

    /// <summary>
    /// Addresses become <c>ADDR</c>, line numbers <c>LINE</c>, IP addresses <c>IP</c>, other numbers that stand alone <c>NUM</c>; offsets in
    /// functions go; control characters go; what is longer than <see cref="MaximumLength"/> is cut.
    /// </summary>
    public static string Normalise(ReadOnlySpan<char> title)
    {
        title = title[..Math.Min(title.Length, MaximumInput)].Trim();
        var text = new StringBuilder(title.Length);
        for (int i = 0; i < title.Length;)
        {
            char c = title[i];
            if (!IsWord(c))
            {
                if (!char.IsControl(c))
                    text.Append(c);
                i++;
                if (c == '(' && EndsWith(text, KeptNumbers))
                {
                    while (i < title.Length && (char.IsAsciiDigit(title[i]) || title[i] == ','))
                        text.Append(title[i++]);
                }

                continue;
            }

            int start = i;
            while (i < title.Length && IsWord(title[i]))
                i++;
            i = AppendWord(text, title, start, i);
        }

        if (text.Length > MaximumLength)
            text.Length = char.IsHighSurrogate(text[MaximumLength - 1]) ? MaximumLength - 1 : MaximumLength;
        return text.ToString().TrimEnd();
    }

    private static int AppendWord(StringBuilder text, ReadOnlySpan<char> title, int start, int end)
    {
        ReadOnlySpan<char> word = title[start..end];
        if (IsAddress(word))
        {
            text.Append("ADDR");
        }
        else if (IsNumber(word) && start > 0)
        {
            if (IsIpAddress(title[start..], out int length))
            {
                text.Append("IP");
                return start + length;
            }

            if (EndsWith(text, "CPU#"))
                text.Length--;
            else if (EndsWith(text, ":LINE:"))
                text.Length--; // The column: one word for both.
            else
                text.Append(title[start - 1] == ':' && FollowsFileName(title[..(start - 1)]) ? "LINE" : "NUM");
        }
        else
        {
            AppendWithoutLongNumbers(text, word);
            return SkipOffset(title, end);
        }

        return end;
    }

    /// <summary>The offset in a function, as in <c>+0x1052/0x2d80</c> or <c>+0x18</c>.</summary>
    private static int SkipOffset(ReadOnlySpan<char> title, int at)
    {
        if (!title[at..].StartsWith("+0x"))
            return at;
        int i = SkipHex(title, at + 3);
        if (i == at + 3)
            return at;
        if (title[i..].StartsWith("/0x") && SkipHex(title, i + 3) is int after && after > i + 3)
            i = after;
        return i;
    }

    private static int SkipHex(ReadOnlySpan<char> title, int i)
    {
        while (i < title.Length && char.IsAsciiHexDigit(title[i]))
            i++;
        return i;
    }

    private static void AppendWithoutLongNumbers(StringBuilder text, ReadOnlySpan<char> word)
    {
        // cfg80211 is a name; seven digits or more are not part of one.
        for (int i = 0; i < word.Length;)
        {
            int end = i;
            while (end < word.Length && char.IsAsciiDigit(word[end]))
                end++;
            if (end - i >= 7)
            {
                text.Append("NUM");
            }
            else
            {
                end = Math.Max(end, i + 1);
                text.Append(word[i..end]);
            }

            i = end;
        }
    }

    private static bool IsAddress(ReadOnlySpan<char> word)
    {
        if (word.Length > 2 && word[0] == '0' && word[1] == 'x')
            return SkipHex(word, 2) == word.Length;
        if (word.Length < 6)
            return false;
        bool digit = false;
        foreach (char c in word)
        {
            if (c is not ((>= '0' and <= '9') or (>= 'a' and <= 'f')))
                return false;
            digit |= c <= '9';
        }

        // "decade" and "facade" are words.
        return digit || word.Length >= 8;
    }

    private static bool IsNumber(ReadOnlySpan<char> word)
    {
        foreach (char c in word)
        {
            if (!char.IsAsciiDigit(c))
                return false;
        }

        return true;
    }

    private static bool IsIpAddress(ReadOnlySpan<char> title, out int length)
    {
        length = 0;
        for (int part = 0; part < 4; part++)
        {
            if (part > 0)
            {
                if (length >= title.Length || title[length] != '.')
                    return false;
                length++;
            }

            int start = length;
            while (length < title.Length && length - start < 3 && char.IsAsciiDigit(title[length]))
                length++;
            if (length == start)
                return false;
        }

        return length == title.Length || !IsWord(title[length]);
    }

    /// <summary>Whether a text ends in the extension of a file name: a dot and letters.</summary>
    private static bool FollowsFileName(ReadOnlySpan<char> text)
    {
        int i = text.Length;
        // Lines may have columns: file.c:12:34.
        while (i > 0 && (char.IsAsciiDigit(text[i - 1]) || text[i - 1] == ':'))
            i--;
        int end = i;
        while (i > 0 && char.IsAsciiLetter(text[i - 1]))
            i--;
        return i < end && i > 0 && text[i - 1] == '.';
    }

    private static bool EndsWith(StringBuilder text, string what)
    {
        if (text.Length < what.Length)
            return false;
        for (int i = 0; i < what.Length; i++)
        {
            if (text[text.Length - what.Length + i] != what[i])
                return false;
        }

        return true;
    }

    private static bool IsWord(char c) => char.IsAsciiLetterOrDigit(c) || c == '_';
}
