using System.Text.RegularExpressions;

namespace Vmm.Testing.Triage;

/// <summary>Makes the title of an OpenBSD kernel's report from its lines, as syzkaller does.</summary>
internal static partial class OpenBsdTitle
{
    private const RegexOptions Options = RegexOptions.NonBacktracking | RegexOptions.CultureInvariant;

    /// <summary>What gets into a trace on the way from a fault to ddb, and helpers that fault for their callers.</summary>
    private static readonly string[] s_machinery =
    [
        "^panic$", "^kerntrap$", "^usertrap$", "^alltraps", "^savectx$", "^db_enter$", "^pageflttrap$", "^kpageflttrap$", "^upageflttrap$", "^__asan_", "^kasan_mem", "^memcpy$", "^memmove$",
        "^memset$", "^memcmp$", "^bcmp$", "^bcopy$", "^bzero$", "^kcopy$", "^strcmp$", "^strncmp$", "^strlcpy$", "^strlcat$", "^strlen$", "^strnlen$", "^strncpy$", "^copyin", "^copyout",
    ];

    /// <summary>The title of a report.</summary>
    public static string Make(List<ConsoleLine> lines) => TitleText.Normalise(Title(lines));

    private static string Title(List<ConsoleLine> lines)
    {
        string first = lines[0].Text[lines[0].BodyStart..];
        if (first.StartsWith("lock order reversal:", StringComparison.Ordinal) || first.StartsWith("witness: lock order reversal:", StringComparison.Ordinal))
            return Reversal(lines);
        if (first.StartsWith("witness: ", StringComparison.Ordinal))
            return Witness(first, lines);
        if (first.StartsWith("cleaned vnode: ", StringComparison.Ordinal))
            return "panic: cleaned vnode isn't";
        if (first.StartsWith("panic: ", StringComparison.Ordinal))
            return Panic(first, lines);
        if (first.StartsWith("Stopped at ", StringComparison.Ordinal))
            return "Stopped at " + (StoppedAt(lines) ?? "an address");
        string kind = lines.Exists(line => line.Body.Contains("protection fault", StringComparison.Ordinal)) ? "protection_fault" : "uvm_fault";
        if (first.StartsWith("kernel: ", StringComparison.Ordinal) && !first.Contains("page fault", StringComparison.Ordinal) && kind == "uvm_fault")
            kind = first[..first.IndexOf(',', StringComparison.Ordinal)];
        string? function = Culprit(lines, 0) ?? StoppedAt(lines);
        return function == null ? kind : $"{kind}: {function}";
    }

    private static string Reversal(List<ConsoleLine> lines)
    {
        string? one = null;
        string? two = null;
        foreach (ConsoleLine line in lines)
        {
            if (line.Body.StartsWith("lock order data ") && line.Body.Contains(" missing", StringComparison.Ordinal))
                return "witness: reversal: lock order data missing";
            Match match = Lock().Match(line.Text);
            if (!match.Success)
                continue;
            if (match.Groups[1].Value == "1st")
                one ??= match.Groups[2].Value;
            else
                two ??= match.Groups[2].Value;
        }

        return one == null || two == null ? "witness: lock order reversal" : $"witness: reversal: {one} {two}";
    }

    private static string Witness(string first, List<ConsoleLine> lines)
    {
        if (first.StartsWith("witness: thread ", StringComparison.Ordinal) && first.Contains("exiting with the following locks held", StringComparison.Ordinal))
            return "witness: thread exiting with locks held";
        if (!first.StartsWith("witness: userret: returning with the following locks held", StringComparison.Ordinal))
            return first;
        for (int i = 1; i < lines.Count; i++)
        {
            Match match = SystemCall().Match(lines[i].Text);
            if (match.Success)
                return "witness: userret: " + match.Groups[1].Value;
        }

        return first;
    }

    private static string Panic(string first, List<ConsoleLine> lines)
    {
        string what = first["panic: ".Length..];
        if (Assertion().Match(what) is { Success: true } assertion)
            return $"assert {assertion.Groups[1].Value} failed in {assertion.Groups[2].Value}";
        if (FreeList().Match(what) is { Success: true } freeList)
            return "malloc: free list modified: " + freeList.Groups[1].Value;
        if (Pool().Match(what) is { Success: true } pool)
        {
            string fault = pool.Groups[2].Value;
            return $"pool: {(fault.StartsWith("double", StringComparison.Ordinal) ? "double put" : fault)}: {pool.Groups[1].Value}";
        }

        if (Kqueue().Match(what) is { Success: true } kqueue)
            return "kqueue: " + kqueue.Groups[1].Value;
        if (Receive().Match(what) is { Success: true } receive)
            return "soreceive " + receive.Groups[1].Value;
        if (what.StartsWith("timeout_add: to_ticks (", StringComparison.Ordinal))
            return "panic: timeout_add: to_ticks < 0";
        if (what.StartsWith("attempt to execute user address", StringComparison.Ordinal))
            return "panic: attempt to execute user address";
        if (what.StartsWith("unhandled af", StringComparison.Ordinal))
            return "panic: unhandled af";
        if (what.StartsWith("Caught invalid memory access", StringComparison.Ordinal))
            return Culprit(lines, 0) is string function ? "KASAN: invalid memory access in " + function : "KASAN: invalid memory access";
        if (what.StartsWith("trap type 6,", StringComparison.Ordinal) && Culprit(lines, 0) is string faulted)
            return "uvm_fault: " + faulted;
        return first;
    }

    /// <summary>The first function of the trace that is not machinery.</summary>
    private static string? Culprit(List<ConsoleLine> lines, int from)
    {
        for (int i = from; i < lines.Count; i++)
        {
            if (OpenBsdLines.TryFrame(lines[i].Body, out ReadOnlySpan<char> name) && !name.IsEmpty)
            {
                string function = name.ToString();
                if (!LinuxFrames.IsAny(function, s_machinery))
                    return function;
            }
        }

        return null;
    }

    private static string? StoppedAt(List<ConsoleLine> lines)
    {
        foreach (ConsoleLine line in lines)
        {
            Match match = Stopped().Match(line.Text);
            if (match.Success)
                return match.Groups[1].Value;
        }

        return null;
    }

    [GeneratedRegex(@"^\s*(1st|2nd) 0x[0-9a-f]+ ([^ ]+)", Options)]
    private static partial Regex Lock();

    [GeneratedRegex(@"\bsys_([a-z0-9_]+)\+", Options)]
    private static partial Regex SystemCall();

    [GeneratedRegex(@"^kernel diagnostic assertion (.+) failed: file "".*/([^""]+)", Options)]
    private static partial Regex Assertion();

    [GeneratedRegex("^Data modified on freelist: .* previous type ([^ ]+)", Options)]
    private static partial Regex FreeList();

    [GeneratedRegex("^pool_[a-z_]+: ([^: ]+):? (double pool_put|free list modified|cpu free list modified)", Options)]
    private static partial Regex Pool();

    [GeneratedRegex("^(?:kqueue|knote).* ([a-z]+ .*)", Options)]
    private static partial Regex Kqueue();

    [GeneratedRegex("^receive ([0-9][a-z]*):", Options)]
    private static partial Regex Receive();

    [GeneratedRegex(@"Stopped at +([A-Za-z_][A-Za-z0-9_.]*)\+", Options)]
    private static partial Regex Stopped();
}
