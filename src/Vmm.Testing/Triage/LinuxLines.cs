namespace Vmm.Testing.Triage;

/// <summary>What a line of a Linux kernel's report looks like.</summary>
internal static class LinuxLines
{
    /// <summary>Names longer than this are not functions.</summary>
    private const int MaximumName = 256;

    /// <summary>Beginnings of the lines around a register dump and a call trace that are the same in all reports.</summary>
    private static readonly string[] s_common =
    [
        "CPU: ", "Hardware name: ", "Workqueue: ", "Modules linked in:", "Unloaded tainted modules:", "Tainted: ", "Sched_ext: ", "Kernel Offset: ",
        "irq event stamp: ", "hardirqs last ", "softirqs last ", "Call Trace:", "Call trace:", "Preemption disabled at:", "Last Breaking-Event-Address:",
        "Dumping ftrace buffer:", "(ftrace buffer empty)", "Mem abort info:", "ESR = ", "EC = ", "SET = ", "EA = ", "FSC = ", "Data abort info:",
        "ISV = ", "CM = ", "GCS = ", "user pgtable: ", "swapper pgtable: ", "[<", "Stack:", "Bytes ", "Process ", "Insn: ",
    ];

    /// <summary>What an oops says of itself before its registers.</summary>
    private static readonly string[] s_oops =
    [
        "#PF: ", "PGD ", "PUD ", "P4D ", "PMD ", "PTE ", "BAD", "Oops: ", "BUG: ", "KASAN: ", "KMSAN: ", "IP: ", "*pd", "*pgd", "Internal error: ",
        "note: ", "Fixing recursive fault", "SMP ", "RIP ", " RIP ", "kernel BUG at ", "invalid opcode: ", "Kernel BUG ",
        "kernel tried to execute", "unable to execute", "CFI failure at ", "Disabling lock debugging", "traps: ", "stack guard page: ",
    ];

    /// <summary>What goes on in reports about tasks that do not go on.</summary>
    private static readonly string[] s_stall =
    [
        "rcu: ", "rcu:\t", "Sending NMI ", "NMI backtrace for cpu", "task:", "Task dump for CPU", "Showing ", "workqueue ", "pwq ", "in-flight: ", "pending: ",
        "delayed: ", "inactive: ", "pool ", "Not tainted ", "Tainted: ", "\"echo 0 > /proc/sys/kernel/hung_task_timeout_secs\"", "(detected by ", "(t=", "INFO: NMI handler ",
        "INFO: lockdep is turned off", "Future hung task reports are suppressed", "INFO: task ", "Blocked by coredump", "rcu_tasks", "blocking rcu_node structures",
        "Stack dump where ", "INFO: Stall ended before state dump start", "watchdog: CPU", "CPU#", "BUG: workqueue lockup",
    ];

    private static readonly string[] s_memory =
    [
        "Read of size ", "Write of size ", "Read at addr ", "Write at addr ", "Allocated by task ", "Freed by task ", "The buggy address ", "Memory state around ", "page:", "flags: ",
        "raw: ", "page dumped because", "which belongs to ", "The buggy address is located ", "allocated ", "freed ", "Last potentially related work creation", "Second to last potentially",
        "Reported by Kernel Concurrency Sanitizer", "read to ", "write to ", "read-write to ", "value changed: ", "kfence-#", "Use-after-free ", "Uninit was ", "Local variable ", "Bytes ",
        "Memory access of size", "Data copied to ", "head: ", "page_type: ", "memcg:", "aops:", "anon flags:", "This frame has ", "Pointer tag", "Invalid access",
    ];

    private static readonly string[] s_registers =
    [
        "RIP", "RSP", "RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "R08", "R09", "R10", "R11", "R12", "R13", "R14", "R15", "FS", "GS", "CS", "DS", "SS", "ES", "CR0", "CR2",
        "CR3", "CR4", "DR0", "DR1", "DR2", "DR3", "DR6", "DR7", "PKRU", "EIP", "ESP", "EAX", "EBX", "ECX", "EDX", "ESI", "EDI", "EBP", "EFLAGS", "ORIG_RAX", "Code", "pstate", "pc", "lr", "sp",
    ];

    /// <summary>The symbolic name of what ends an oops or a warning: <c>---[ end trace 0000000000000000 ]---</c>.</summary>
    public static bool IsEndOfTrace(ReadOnlySpan<char> body) => body.StartsWith("---[ end trace");

    /// <summary><c>---[ end Kernel panic - not syncing: ... ]---</c>.</summary>
    public static bool IsEndOfPanic(ReadOnlySpan<char> body) => body.StartsWith("---[ end Kernel panic");

    /// <summary>A line of equals signs, as around the reports of sanitizers and lockdep.</summary>
    public static bool IsRuler(ReadOnlySpan<char> body) => body.Length >= 20 && body.TrimEnd().TrimStart('=').IsEmpty;

    /// <summary><c>------------[ cut here ]------------</c>.</summary>
    public static bool IsCutHere(ReadOnlySpan<char> body) => body.StartsWith("------------[ cut here ]");

    /// <summary>What is said of the data before <c>cut here</c>, which only says where the code is.</summary>
    public static bool IsExplanation(ReadOnlySpan<char> body) =>
        body.StartsWith("list_add corruption") || body.StartsWith("list_del corruption") || body.StartsWith("usercopy: ") || body.StartsWith("kernel tried to execute ")
        || body.StartsWith("unable to execute userspace code") || body.StartsWith("kasan: GPF ");

    /// <summary>Another boot's first words.</summary>
    public static bool IsBoot(ReadOnlySpan<char> body) =>
        body.StartsWith("Linux version ") || body.StartsWith("early console in ") || body.StartsWith("SeaBIOS (version") || body.StartsWith("Decompressing Linux")
        || body.StartsWith("Booting from ");

    /// <summary>The head of a call trace.</summary>
    public static bool IsCallTrace(ReadOnlySpan<char> body) => body.TrimStart() is var text && (text.StartsWith("Call Trace:") || text.StartsWith("Call trace:"));

    /// <summary>The end of a whole stack: nothing of it follows.</summary>
    public static bool IsEndOfTask(ReadOnlySpan<char> body) => body.Trim() is "</TASK>";

    /// <summary>Part of a call trace or of a register dump.</summary>
    public static bool IsTrace(ReadOnlySpan<char> body)
    {
        if (TryFrame(body, out _, out _))
            return true;
        ReadOnlySpan<char> text = body.Trim();
        return (text.Length is > 2 and < 24 && text[0] == '<' && text[^1] == '>') || IsRegister(text) || text.StartsWith("---[");
    }

    /// <summary>Something that is in reports of all kinds, trace and registers included.</summary>
    public static bool IsCommon(ReadOnlySpan<char> body) => StartsWithAny(body.TrimStart(), s_common) || IsTrace(body);

    public static bool IsOops(ReadOnlySpan<char> body) => StartsWithAny(body.TrimStart(), s_oops) || (body.StartsWith("[") && body.Contains("] pgd=", StringComparison.Ordinal));

    public static bool IsStall(ReadOnlySpan<char> body) => StartsWithAny(body.TrimStart(), s_stall) || IsHeldLock(body) || IsRuler(body);

    public static bool IsMemory(ReadOnlySpan<char> body) => StartsWithAny(body.TrimStart(), s_memory) || IsShadow(body);

    /// <summary>A list of held locks: its head, <c>2 locks held by sh/123:</c>, or one of it, <c> #0: ffff... (...){...}, at: f+0x1/0x2</c>.</summary>
    public static bool IsHeldLock(ReadOnlySpan<char> body)
    {
        ReadOnlySpan<char> text = body.TrimStart();
        int digits = text.StartsWith("#") ? 1 : 0;
        int i = digits;
        while (i < text.Length && char.IsAsciiDigit(text[i]))
            i++;
        if (i == digits)
            return text.StartsWith("no locks held by ") || text.StartsWith("last function: ");
        return digits == 1 ? text[i..].StartsWith(":") : text[i..].StartsWith(" lock held by ") || text[i..].StartsWith(" locks held by ");
    }

    /// <summary>
    /// A frame: <c> f+0x1/0x2</c>, with an address before it or not, with a module after it or not. A question mark before the name says
    /// that the kernel is not sure of it.
    /// </summary>
    /// <param name="body">The message.</param>
    /// <param name="name">The function, as it is written.</param>
    /// <param name="isSure">No question mark.</param>
    public static bool TryFrame(ReadOnlySpan<char> body, out ReadOnlySpan<char> name, out bool isSure)
    {
        ReadOnlySpan<char> text = body.TrimStart();
        isSure = true;
        // Up to two addresses in brackets, as 4.x has them.
        for (int i = 0; i < 2 && text.StartsWith("["); i++)
        {
            int end = text.IndexOf(']');
            if (end < 0 || !IsAddress(text[1..end]))
                break;
            text = text[(end + 1)..].TrimStart();
        }

        if (text.StartsWith("? "))
        {
            isSure = false;
            text = text[2..].TrimStart();
        }

        return TryFunction(text, out name);
    }

    /// <summary>A function with its offset and size at the start of a text: <c>f+0x1/0x2</c>.</summary>
    public static bool TryFunction(ReadOnlySpan<char> text, out ReadOnlySpan<char> name)
    {
        name = default;
        int plus = text[..Math.Min(text.Length, MaximumName)].IndexOf('+');
        if (plus <= 0 || !text[plus..].StartsWith("+0x"))
            return false;
        foreach (char c in text[..plus])
        {
            if (!char.IsAsciiLetterOrDigit(c) && c is not ('_' or '.' or '$' or ':' or '<' or '>'))
                return false;
        }

        int slash = SkipHex(text, plus + 3);
        if (slash == plus + 3 || !text[slash..].StartsWith("/0x"))
            return false;
        name = text[..plus];
        return true;
    }

    /// <summary>The function that a kernel's instruction pointer is in: <c>RIP: 0010:f+0x1/0x2</c>; 4.x, 32-bit and arm64 forms too.</summary>
    public static bool TryPointer(ReadOnlySpan<char> body, out ReadOnlySpan<char> name, out bool isKernel)
    {
        name = default;
        isKernel = false;
        ReadOnlySpan<char> text = body.TrimStart();
        if (text.StartsWith("RIP: ") || text.StartsWith("EIP: "))
            text = text[5..];
        else if (text.StartsWith("pc : "))
            text = text[5..];
        else
            return false;
        int colon = text.IndexOf(':');
        if (colon > 0 && colon <= 4 && SkipHex(text, 0) == colon)
        {
            // Segments of user space have a privilege level of 3 in their low bits.
            if (char.IsAsciiDigit(text[colon - 1]) && (text[colon - 1] - '0' & 3) == 3)
                return true;
            text = text[(colon + 1)..];
        }

        isKernel = true;
        TryFrame(text, out name, out _);
        return true;
    }

    /// <summary>The rest of a list of modules that was too long for one line: names, and taints in parentheses, nothing else.</summary>
    public static bool IsModules(ReadOnlySpan<char> body)
    {
        foreach (char c in body)
        {
            if (!char.IsAsciiLetterOrDigit(c) && c is not ('_' or ' ' or '(' or ')' or '+' or '-'))
                return false;
        }

        return body.Contains('_');
    }

    public static bool StartsWithAny(ReadOnlySpan<char> text, string[] beginnings)
    {
        foreach (string beginning in beginnings)
        {
            if (text.StartsWith(beginning))
                return true;
        }

        return false;
    }

    public static int SkipHex(ReadOnlySpan<char> text, int i)
    {
        while (i < text.Length && char.IsAsciiHexDigit(text[i]))
            i++;
        return i;
    }

    private static bool IsAddress(ReadOnlySpan<char> text)
    {
        text = text.TrimStart('<').TrimEnd('>');
        int start = text.StartsWith("0x") ? 2 : 0;
        return text.Length > start && SkipHex(text, start) == text.Length;
    }

    private static bool IsRegister(ReadOnlySpan<char> text)
    {
        int colon = text[..Math.Min(text.Length, 12)].IndexOf(':');
        if (colon <= 0)
            return false;
        ReadOnlySpan<char> name = text[..colon].TrimEnd();
        foreach (string register in s_registers)
        {
            if (name.SequenceEqual(register))
                return true;
        }

        // x0 to x30 of arm64.
        return name.Length is 2 or 3 && name[0] == 'x' && char.IsAsciiDigit(name[1]) && char.IsAsciiDigit(name[^1]);
    }

    /// <summary>KASAN's bytes: <c>&gt;ffff888012345600: fa fb</c>.</summary>
    private static bool IsShadow(ReadOnlySpan<char> body)
    {
        ReadOnlySpan<char> text = body.TrimStart().TrimStart('>');
        int end = SkipHex(text, 0);
        return end >= 8 && text[end..].StartsWith(": ");
    }
}
