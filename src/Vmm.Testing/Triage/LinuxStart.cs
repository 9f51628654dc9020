namespace Vmm.Testing.Triage;

/// <summary>How a Linux kernel's report goes on after its first line, and so where it ends.</summary>
internal enum LinuxShape
{
    /// <summary>To <c>---[ end trace</c>, and the registers that are repeated after it.</summary>
    Oops,

    /// <summary>To <c>---[ end trace</c>.</summary>
    Warning,

    /// <summary>To the next line of equals signs.</summary>
    Framed,

    /// <summary>To the end of its call trace.</summary>
    Traced,

    /// <summary>To the end of the last of its call traces.</summary>
    Stall,

    /// <summary>To the end of a list of locks.</summary>
    Locks,

    /// <summary>One line.</summary>
    Line,

    /// <summary>To the machine's end, or what the kernel says last.</summary>
    Panic,
}

/// <summary>What a Linux kernel's report is about, as far as it decides how its title is made.</summary>
internal enum LinuxSubject
{
    Panic,
    Kasan,
    Kmsan,
    Kfence,
    Kcsan,
    Ubsan,
    PagingRequest,
    NullPointer,
    UserMemory,
    StackGuard,
    Exception,
    DoubleFault,
    KernelBug,
    InternalError,
    Warning,
    Deadlock,
    IrqInversion,
    UnsafeOrder,
    InconsistentState,
    SuspiciousRcu,
    UnlockBalance,
    HeldLockFreed,
    StillLocked,
    LockedInUser,
    NestedLock,
    WaitContext,
    StaticKey,
    SleepingFunction,
    SchedulingWhileAtomic,
    Spinlock,
    LeakedLock,
    Preemptible,
    BadPage,
    MemoryLeak,
    FirstLine,
    HungTask,
    UnkillableTask,
    RcuStall,
    SoftLockup,
    HardLockup,
    WorkqueueLockup,
}

/// <summary>The first line of a Linux kernel's report.</summary>
/// <param name="Kind">What it is about.</param>
/// <param name="Shape">How it goes on.</param>
/// <param name="Subject">How its title is made.</param>
internal readonly record struct LinuxStart(ReportKind Kind, LinuxShape Shape, LinuxSubject Subject)
{
    /// <summary>First words, and what they begin. The first that fits counts.</summary>
    private static readonly (string Words, ReportKind Kind, LinuxShape Shape, LinuxSubject Subject)[] s_firstWords =
    [
        ("Kernel panic - not syncing", ReportKind.Panic, LinuxShape.Panic, LinuxSubject.Panic),
        ("BUG: KASAN: ", ReportKind.Kasan, LinuxShape.Framed, LinuxSubject.Kasan),
        ("BUG: KMSAN: ", ReportKind.Kasan, LinuxShape.Framed, LinuxSubject.Kmsan),
        ("BUG: KFENCE: ", ReportKind.Kasan, LinuxShape.Framed, LinuxSubject.Kfence),
        ("BUG: KCSAN: ", ReportKind.Kcsan, LinuxShape.Framed, LinuxSubject.Kcsan),
        ("UBSAN: ", ReportKind.Ubsan, LinuxShape.Framed, LinuxSubject.Ubsan),
        ("BUG: unable to handle kernel paging request", ReportKind.Oops, LinuxShape.Oops, LinuxSubject.PagingRequest),
        ("BUG: unable to handle page fault for address", ReportKind.Oops, LinuxShape.Oops, LinuxSubject.PagingRequest),
        ("BUG: unable to handle kernel NULL pointer dereference", ReportKind.Oops, LinuxShape.Oops, LinuxSubject.NullPointer),
        ("BUG: kernel NULL pointer dereference", ReportKind.Oops, LinuxShape.Oops, LinuxSubject.NullPointer),
        ("Unable to handle kernel paging request", ReportKind.Oops, LinuxShape.Oops, LinuxSubject.PagingRequest),
        ("Unable to handle kernel NULL pointer dereference", ReportKind.Oops, LinuxShape.Oops, LinuxSubject.NullPointer),
        ("Unable to handle kernel access to user memory", ReportKind.Oops, LinuxShape.Oops, LinuxSubject.UserMemory),
        ("kernel BUG at ", ReportKind.Oops, LinuxShape.Oops, LinuxSubject.KernelBug),
        ("PANIC: double fault", ReportKind.Oops, LinuxShape.Oops, LinuxSubject.DoubleFault),
        ("Internal error: ", ReportKind.Oops, LinuxShape.Oops, LinuxSubject.InternalError),
        ("WARNING: possible circular locking dependency detected", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.Deadlock),
        ("WARNING: possible recursive locking detected", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.Deadlock),
        ("WARNING: possible irq lock inversion dependency detected", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.IrqInversion),
        ("INFO: possible circular locking dependency detected", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.Deadlock),
        ("INFO: possible recursive locking detected", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.Deadlock),
        ("INFO: possible irq lock inversion dependency detected", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.IrqInversion),
        ("WARNING: inconsistent lock state", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.InconsistentState),
        ("INFO: inconsistent lock state", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.InconsistentState),
        ("WARNING: suspicious RCU usage", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.SuspiciousRcu),
        ("INFO: suspicious RCU usage", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.SuspiciousRcu),
        ("WARNING: bad unlock balance detected!", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.UnlockBalance),
        ("BUG: bad unlock balance detected!", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.UnlockBalance),
        ("WARNING: bad contention detected!", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.FirstLine),
        ("WARNING: held lock freed!", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.HeldLockFreed),
        ("BUG: held lock freed!", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.HeldLockFreed),
        ("WARNING: lock held when returning to user space", ReportKind.Lockdep, LinuxShape.Locks, LinuxSubject.LockedInUser),
        ("BUG: lock held when returning to user space", ReportKind.Lockdep, LinuxShape.Locks, LinuxSubject.LockedInUser),
        ("WARNING: Nested lock was not taken", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.NestedLock),
        ("BUG: Invalid wait context", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.WaitContext),
        ("INFO: trying to register non-static key", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.StaticKey),
        ("BUG: sleeping function called from invalid context", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.SleepingFunction),
        ("BUG: scheduling while atomic", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.SchedulingWhileAtomic),
        ("BUG: spinlock ", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.Spinlock),
        ("BUG: rwlock ", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.Spinlock),
        ("BUG: workqueue leaked lock or atomic", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.LeakedLock),
        ("BUG: workqueue leaked atomic, lock or RCU", ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.LeakedLock),
        ("BUG: MAX_", ReportKind.Lockdep, LinuxShape.Line, LinuxSubject.FirstLine),
        ("BUG: Bad page state", ReportKind.Oops, LinuxShape.Traced, LinuxSubject.BadPage),
        ("BUG: Bad page cache", ReportKind.Oops, LinuxShape.Traced, LinuxSubject.BadPage),
        ("BUG: Bad page map", ReportKind.Oops, LinuxShape.Traced, LinuxSubject.FirstLine),
        ("BUG: memory leak", ReportKind.Oops, LinuxShape.Traced, LinuxSubject.MemoryLeak),
        ("BUG: Bad rss-counter state", ReportKind.Oops, LinuxShape.Line, LinuxSubject.FirstLine),
        ("BUG: non-zero ", ReportKind.Oops, LinuxShape.Line, LinuxSubject.FirstLine),
        ("BUG: workqueue lockup", ReportKind.Lockup, LinuxShape.Stall, LinuxSubject.WorkqueueLockup),
        ("BUG: soft lockup", ReportKind.Lockup, LinuxShape.Stall, LinuxSubject.SoftLockup),
        ("Watchdog detected hard LOCKUP on cpu", ReportKind.Lockup, LinuxShape.Stall, LinuxSubject.HardLockup),
    ];

    /// <summary>Words that may come before the first ones of a report.</summary>
    private static readonly string[] s_introductions = ["[ ", "watchdog: ", "NMI watchdog: ", "rcu: ", "Oops: "];

    /// <summary>Whether a message begins a report.</summary>
    public static bool TryParse(ReadOnlySpan<char> body, out LinuxStart start)
    {
        ReadOnlySpan<char> text = body.TrimStart();
        body = text;
        foreach (string introduction in s_introductions)
        {
            if (text.StartsWith(introduction))
                text = text[introduction.Length..].TrimStart();
        }

        foreach ((string words, ReportKind kind, LinuxShape shape, LinuxSubject subject) in s_firstWords)
        {
            if (text.StartsWith(words))
            {
                start = new LinuxStart(kind, shape, subject);
                return true;
            }
        }

        LinuxStart? other = text switch
        {
            _ when text.StartsWith("WARNING: ") => Warning(text["WARNING: ".Length..]),
            _ when text.StartsWith("INFO: ") => Info(text["INFO: ".Length..]),
            _ when text.StartsWith("BUG: ") => Bug(text["BUG: ".Length..]),
            _ when text.StartsWith("CPU") && text.Contains(": Watchdog detected hard LOCKUP on cpu", StringComparison.Ordinal) =>
                new LinuxStart(ReportKind.Lockup, LinuxShape.Stall, LinuxSubject.HardLockup),
            _ => IsException(body) ? new LinuxStart(ReportKind.Oops, LinuxShape.Oops, LinuxSubject.Exception) : null,
        };
        start = other.GetValueOrDefault();
        return other != null;
    }

    /// <summary>
    /// The head of an oops without words of its own: <c>invalid opcode: 0000 [#1] SMP</c>, <c>general protection fault, probably for
    /// non-canonical address 0xdead: 0000 [#1]</c>, since 6.11 with <c>Oops: </c> before it.
    /// </summary>
    public static bool IsException(ReadOnlySpan<char> body)
    {
        int mark = body[..Math.Min(body.Length, 256)].IndexOf(" [#");
        if (mark < 5 || body.Length <= mark + 3 || !char.IsAsciiDigit(body[mark + 3]) || !char.IsAsciiLetter(body[0]))
            return false;
        int digits = mark;
        while (digits > 0 && char.IsAsciiHexDigit(body[digits - 1]))
            digits--;
        return digits < mark && digits >= 2 && body[digits - 1] == ' ' && body[digits - 2] == ':';
    }

    private static LinuxStart? Warning(ReadOnlySpan<char> text)
    {
        if (text.StartsWith("CPU: ") || IsPlaceOfWarning(text))
            return new LinuxStart(ReportKind.Warning, LinuxShape.Warning, LinuxSubject.Warning);
        if (text.Contains("-unsafe lock order detected", StringComparison.Ordinal))
            return new LinuxStart(ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.UnsafeOrder);
        if (text.Contains(" still has locks held!", StringComparison.Ordinal))
            return new LinuxStart(ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.StillLocked);
        return text.StartsWith("kernel stack regs at ") || text.StartsWith("kernel stack frame pointer at ")
            ? new LinuxStart(ReportKind.Warning, LinuxShape.Line, LinuxSubject.FirstLine)
            : null;
    }

    /// <summary>
    /// Since 6.19 a warning says where first: <c>WARNING: kernel/fork.c:123 at f+0x1/0x2, CPU#1: sh/123</c>, with the condition in brackets
    /// before it in some configurations; without a CPU also <c>WARNING: at kernel/fork.c:123 f+0x1/0x2</c>.
    /// </summary>
    private static bool IsPlaceOfWarning(ReadOnlySpan<char> text)
    {
        if (text.StartsWith("["))
        {
            int end = text.LastIndexOf(']');
            text = end < 0 ? text : text[(end + 1)..].TrimStart();
        }

        bool first = text.StartsWith("at ");
        if (first)
            text = text[3..];
        int blank = text.IndexOf(' ');
        if (blank < 0)
            return false;
        int colon = text[..blank].LastIndexOf(':');
        if (colon <= 0 || colon + 1 == blank || !text[..colon].Contains('.'))
            return false;
        foreach (char c in text[(colon + 1)..blank])
        {
            if (!char.IsAsciiDigit(c))
                return false;
        }

        ReadOnlySpan<char> rest = text[(blank + 1)..];
        return first ? LinuxLines.TryFunction(rest, out _) : rest.StartsWith("at ") && (LinuxLines.TryFunction(rest[3..], out _) || rest.StartsWith("at 0x"));
    }

    private static LinuxStart? Info(ReadOnlySpan<char> text)
    {
        if (text.StartsWith("task ") && text.Contains(" seconds", StringComparison.Ordinal))
        {
            if (text.Contains(" blocked ", StringComparison.Ordinal) && text.Contains(" for more than ", StringComparison.Ordinal))
                return new LinuxStart(ReportKind.HungTask, LinuxShape.Stall, LinuxSubject.HungTask);
            if (text.Contains(" can't die for more than ", StringComparison.Ordinal))
                return new LinuxStart(ReportKind.HungTask, LinuxShape.Stall, LinuxSubject.UnkillableTask);
        }

        if (text.StartsWith("rcu_") && text.Contains("detected", StringComparison.Ordinal) && text.Contains(" stall", StringComparison.Ordinal))
            return new LinuxStart(ReportKind.RcuStall, LinuxShape.Stall, LinuxSubject.RcuStall);
        return text.Contains("-unsafe lock order detected", StringComparison.Ordinal)
            ? new LinuxStart(ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.UnsafeOrder)
            : null;
    }

    private static LinuxStart? Bug(ReadOnlySpan<char> text)
    {
        if (text.Contains("stack guard page was hit at", StringComparison.Ordinal))
            return new LinuxStart(ReportKind.Oops, LinuxShape.Oops, LinuxSubject.StackGuard);
        if (text.Contains(" still has locks held!", StringComparison.Ordinal))
            return new LinuxStart(ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.StillLocked);
        if (text.StartsWith("using ") && text.Contains("() in preemptible", StringComparison.Ordinal))
            return new LinuxStart(ReportKind.Lockdep, LinuxShape.Traced, LinuxSubject.Preemptible);
        if (text.StartsWith("Dentry ") && text.Contains(" still in use", StringComparison.Ordinal))
            return new LinuxStart(ReportKind.Oops, LinuxShape.Oops, LinuxSubject.FirstLine);
        return null;
    }
}
