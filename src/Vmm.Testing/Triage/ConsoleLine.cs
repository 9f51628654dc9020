using System.Globalization;

namespace Vmm.Testing.Triage;

/// <summary>Who printed a kernel's line, where the kernel says so (Linux with CONFIG_PRINTK_CALLER).</summary>
/// <param name="Kind"><c>T</c>: a task. <c>C</c>: a CPU in an interrupt. NUL: nothing was said.</param>
/// <param name="Number">The task's or the CPU's number.</param>
internal readonly record struct Caller(char Kind, ulong Number)
{
    public bool IsKnown => Kind != '\0';

    public bool IsCpu => Kind == 'C';
}

/// <summary>A finished line of a console, split into what printk puts before a message and the message.</summary>
/// <param name="Text">From the prefix on: what a login prompt left before it on the line is not part of it.</param>
/// <param name="BodyStart">Where the message begins in <paramref name="Text"/>.</param>
/// <param name="Time">The timestamp in microseconds, or -1 where there is none.</param>
/// <param name="Caller">Who printed it.</param>
internal readonly record struct ConsoleLine(string Text, int BodyStart, long Time, Caller Caller)
{
    /// <summary>The longest line that is looked at, in bytes of UTF-8; the rest of a longer one is left out.</summary>
    internal const int MaximumBytes = 8 * 1024;

    /// <summary>The most bytes that one UTF-16 code unit takes in UTF-8.</summary>
    private const int BytesPerUnit = 3;

    /// <summary>Whether printk put its time before the message.</summary>
    public bool IsTimed => Time >= 0;

    /// <summary>The message.</summary>
    public ReadOnlySpan<char> Body => Text.AsSpan(BodyStart);

    /// <summary>Takes a line apart.</summary>
    public static ConsoleLine Parse(string line)
    {
        line = Clip(line);
        for (int at = 0; at >= 0 && at < line.Length; at = NextPrefix(line, at + 1))
        {
            if (TryPrefix(line, at, out int body, out long time, out Caller caller))
                return new ConsoleLine(at == 0 ? line : line[at..], body - at, time, caller);
        }

        int start = SkipLevel(line, 0);
        int login = line.IndexOf("login: ", StringComparison.Ordinal);
        if (login == 0 || (login > 0 && line[login - 1] == ' '))
            return new ConsoleLine(line[(login + 7)..], 0, -1, default);
        return new ConsoleLine(line, start, -1, default);
    }

    /// <summary>Cuts a line to <see cref="MaximumBytes"/>, without splitting a character.</summary>
    internal static string Clip(string line)
    {
        if (line.Length <= MaximumBytes / BytesPerUnit)
            return line;
        int bytes = 0;
        for (int i = 0; i < line.Length; i++)
        {
            bool pair = char.IsHighSurrogate(line[i]) && i + 1 < line.Length && char.IsLowSurrogate(line[i + 1]);
            bytes += pair ? 4 : line[i] < 0x80 ? 1 : line[i] < 0x800 ? 2 : BytesPerUnit;
            if (bytes > MaximumBytes)
                return line[..i];
            if (pair)
                i++;
        }

        return line;
    }

    /// <summary>Where a prefix may begin that is not at the line's start: after a prompt that something else left unfinished.</summary>
    private static int NextPrefix(string line, int from)
    {
        for (int at = line.IndexOf('[', from); at >= 0; at = line.IndexOf('[', at + 1))
        {
            if (at >= 2 && line[at - 1] == ' ' && line[at - 2] is ':' or '#' or '$' or '>')
                return at;
            if (at >= 3 && line[at - 1] == '>' && line[at - 3] == '<')
                return at;
        }

        return -1;
    }

    private static bool TryPrefix(string line, int at, out int body, out long time, out Caller caller)
    {
        body = 0;
        time = -1;
        caller = default;
        int i = SkipLevel(line, at);
        if (i >= line.Length || line[i] != '[')
            return false;
        i = SkipSpaces(line, i + 1);
        int digits = i;
        while (i < line.Length && char.IsAsciiDigit(line[i]))
            i++;
        if (i == digits || i >= line.Length || line[i] != '.')
            return false;
        int fraction = ++i;
        while (i < line.Length && char.IsAsciiDigit(line[i]))
            i++;
        if (i == fraction || i >= line.Length || line[i] != ']')
            return false;
        time = Microseconds(line.AsSpan(digits, fraction - 1 - digits), line.AsSpan(fraction, i - fraction));
        i++;
        if (i < line.Length && line[i] == '[')
            i = SkipCaller(line, i, ref caller);
        body = i < line.Length && line[i] == ' ' ? i + 1 : i;
        return true;
    }

    private static int SkipCaller(string line, int at, ref Caller caller)
    {
        int i = SkipSpaces(line, at + 1);
        if (i >= line.Length || line[i] is not ('T' or 'C'))
            return at;
        char kind = line[i++];
        int digits = i;
        while (i < line.Length && char.IsAsciiDigit(line[i]))
            i++;
        int end = line.IndexOf(']', i);
        if (i == digits || end < 0 || !ulong.TryParse(line.AsSpan(digits, i - digits), NumberStyles.None, CultureInfo.InvariantCulture, out ulong number))
            return at;
        // What may follow the number is a name, as in [T123/name].
        if (end != i && char.IsAsciiLetterOrDigit(line[i]))
            return at;
        caller = new Caller(kind, number);
        return end + 1;
    }

    /// <summary>A level as in <c>&lt;4&gt;</c>.</summary>
    private static int SkipLevel(string line, int at)
    {
        int i = at;
        if (i >= line.Length || line[i] != '<')
            return at;
        i++;
        int digits = i;
        while (i < line.Length && i - digits < 4 && char.IsAsciiDigit(line[i]))
            i++;
        return i > digits && i < line.Length && line[i] == '>' ? i + 1 : at;
    }

    private static int SkipSpaces(string line, int i)
    {
        while (i < line.Length && line[i] == ' ')
            i++;
        return i;
    }

    private static long Microseconds(ReadOnlySpan<char> seconds, ReadOnlySpan<char> fraction)
    {
        // Twelve digits of seconds are more than any uptime, and fit.
        if (seconds.Length > 12 || !long.TryParse(seconds, NumberStyles.None, CultureInfo.InvariantCulture, out long whole))
            return 0;
        long parts = 0;
        for (int i = 0; i < 6; i++)
            parts = (parts * 10) + (i < fraction.Length ? fraction[i] - '0' : 0);
        return (whole * 1_000_000) + parts;
    }
}
