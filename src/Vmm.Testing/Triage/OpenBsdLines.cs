namespace Vmm.Testing.Triage;

/// <summary>What a line of an OpenBSD kernel's report looks like.</summary>
internal static class OpenBsdLines
{
    private static readonly string[] s_witness = ["exclusive ", "shared ", "1st ", "2nd ", "3rd ", "lock order ", "lock order data ", "witness: "];

    private static readonly string[] s_crash =
    [
        "Stopped at ", "TID ", "end of kernel", "end trace frame:", "https://www.openbsd.org/ddb.html", "Starting stack trace", "End of stack trace", "syncing disks", "dump to dev",
        "dumping to dev", "trap type ", "gsbase ", "fatal ", "kernel: ", "uvm_fault(", "panic: ", "WARNING: SPL NOT LOWERED", "acquiring duplicate lock", "data modified on freelist",
    ];

    /// <summary>What the kernel says last before ddb takes over.</summary>
    public static bool IsLastBeforeDdb(ReadOnlySpan<char> body) => body.StartsWith("reports.  Insufficient info");

    /// <summary>What the kernel says last before the machine goes.</summary>
    public static bool IsLast(ReadOnlySpan<char> body) => body.StartsWith("rebooting...") || body.StartsWith("The operating system has halted");

    /// <summary>Another boot's first words.</summary>
    public static bool IsBoot(ReadOnlySpan<char> body) =>
        body.StartsWith(">> OpenBSD/") || body.StartsWith("OpenBSD ") && body.Contains('#') || body.StartsWith("booting hd") || body.StartsWith("booting sr") || body.StartsWith("Using drive 0, partition");

    /// <summary>Part of a report of witness(4).</summary>
    public static bool IsWitness(ReadOnlySpan<char> body) => LinuxLines.StartsWithAny(body.TrimStart(), s_witness) || IsNumberedFrame(body.TrimStart()) || body.Trim().IsEmpty;

    /// <summary>Part of what a panic or a fault says.</summary>
    public static bool IsCrash(ReadOnlySpan<char> body) =>
        LinuxLines.StartsWithAny(body.TrimStart(), s_crash) || TryFrame(body, out _) || IsNumberedFrame(body.TrimStart()) || IsThread(body);

    /// <summary>A frame of a trace: <c>f(1,2) at f+0x18 sys/kern/file.c:1</c>. Where the code has no symbol, an address stands for it.</summary>
    /// <param name="body">The line.</param>
    /// <param name="name">The function; empty where it has none.</param>
    public static bool TryFrame(ReadOnlySpan<char> body, out ReadOnlySpan<char> name)
    {
        name = default;
        int open = body.IndexOf('(');
        int close = body.IndexOf(") at");
        if (open <= 0 || close < open || SkipWord(body, 0) != open)
            return false;
        ReadOnlySpan<char> place = body[(close + 4)..].TrimStart();
        // A console that is 80 columns wide may have the rest on the next line.
        if (place.IsEmpty || (place[0] is >= 'a' and <= 'z' or >= 'A' and <= 'Z' or '_'))
            name = body[..open];
        return true;
    }

    /// <summary>A line of the table of threads: <c>* 35921   8907      0         0x2          0    0  sh</c>.</summary>
    private static bool IsThread(ReadOnlySpan<char> body)
    {
        ReadOnlySpan<char> text = body.TrimStart(" *");
        int digits = 0;
        while (digits < text.Length && char.IsAsciiDigit(text[digits]))
            digits++;
        return digits > 0 && body.Length > 0 && body[0] is ' ' or '*' && text[digits..].StartsWith(" ") && text[digits..].Contains("  ", StringComparison.Ordinal);
    }

    /// <summary>A frame of witness(4): <c>#1  rw_enter+0x3e1 sys/kern/kern_rwlock.c:310</c>.</summary>
    private static bool IsNumberedFrame(ReadOnlySpan<char> text) => text.Length > 2 && text[0] == '#' && char.IsAsciiDigit(text[1]);

    private static int SkipWord(ReadOnlySpan<char> text, int i)
    {
        while (i < text.Length && (char.IsAsciiLetterOrDigit(text[i]) || text[i] is '_' or '.'))
            i++;
        return i;
    }
}
