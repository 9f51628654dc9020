namespace Vmm.Testing.Triage;

/// <summary>Makes the title of a Linux kernel's report from its lines, as syzkaller does.</summary>
internal sealed class LinuxTitle
{
    private static readonly string[] s_none = [];

    /// <summary>What begins another stack in a report: whose memory it was, and the like.</summary>
    private static readonly string[] s_otherStacks = ["Allocated by task ", "Allocated:", "Freed by task ", "Freed:", "Uninit was ", "Local variable ", "Call Trace:", "Call trace:"];

    private static readonly string[] s_allocation = ["kmalloc", "krealloc", "slab", "kmem"];

    /// <summary>Warnings whose place is a helper that says what is wrong with its caller: the file, words of the line, the title, more machinery.</summary>
    private static readonly (string File, string Words, string Title, string[] Skip)[] s_helpers =
    [
        ("lib/debugobjects.c", "", "WARNING: ODEBUG bug", ["debug_", "rcu", "hrtimer_", "timer_", "work_", "percpu_", "vunmap", "vfree", "__free_", "kobject_"]),
        ("mm/usercopy.c", "", "WARNING: bad usercopy", ["usercopy", "__check"]),
        ("lib/kobject.c", "", "WARNING: kobject bug", ["kobject_"]),
        ("fs/proc/generic.c", "", "WARNING: proc registration bug", ["proc_"]),
        ("lib/refcount.c", "", "WARNING: refcount bug", ["refcount", "kobject_"]),
        ("kernel/locking/lockdep.c", "lock_", "WARNING: locking bug", ["lock_sock", "release_sock"]),
        ("mm/", " kmalloc", "WARNING: kmalloc bug", s_allocation),
        ("mm/", " kvmalloc", "WARNING: kmalloc bug", s_allocation),
        ("mm/", " kzalloc", "WARNING: kmalloc bug", s_allocation),
        ("mm/vmalloc.c", "__vmalloc_node", "WARNING: zero-size vmalloc", s_none),
    ];

    private static readonly string[] s_urb = ["usb_submit_urb", "usb_start_wait_urb", "usb_bulk_msg", "usb_interrupt_msg", "usb_control_msg"];

    private readonly List<ConsoleLine> _lines;
    private readonly int _first;

    private LinuxTitle(List<ConsoleLine> lines, int first)
    {
        _lines = lines;
        _first = first;
    }

    private ReadOnlySpan<char> Head => _lines[_first].Body;

    /// <summary>The title of a report.</summary>
    /// <param name="subject">What its first line says.</param>
    /// <param name="lines">All its lines.</param>
    /// <param name="first">The index of the first line; before it are only lines that introduce it.</param>
    public static string Make(LinuxSubject subject, List<ConsoleLine> lines, int first) => TitleText.Normalise(new LinuxTitle(lines, first).Make(subject));

    /// <summary>What comes after some words in a text; empty where they do not come.</summary>
    internal static ReadOnlySpan<char> After(ReadOnlySpan<char> text, string words)
    {
        int at = text.IndexOf(words);
        return at < 0 ? default : text[(at + words.Length)..];
    }

    private static string In(string what, string? function) => function == null ? what : $"{what} in {function}";

    private string Make(LinuxSubject subject) => subject switch
    {
        LinuxSubject.Panic => Panic(),
        LinuxSubject.Kasan => Kasan(),
        LinuxSubject.Kmsan => In("KMSAN: " + Before(After(Head, "BUG: KMSAN: "), " in "), Pick(FramesFrom(_first + 1, false, null), "alloc_skb", "netlink_ack", "netlink_rcv_skb",
            "_encrypt$", "^crypto_", "^cipher_", "^drbg_", "^rng_") ?? HeadFunction(" in ")),
        LinuxSubject.Kfence => In("KFENCE: " + Before(After(Head, "BUG: KFENCE: "), " in "), Pick(FramesFrom(_first + 1, false, HeadFunction(" in ")))),
        LinuxSubject.Kcsan => "KCSAN: " + After(Head, "BUG: KCSAN: ").ToString(),
        LinuxSubject.Ubsan => Ubsan(),
        LinuxSubject.PagingRequest => In("BUG: unable to handle kernel paging request", Fault()),
        LinuxSubject.NullPointer => In("BUG: unable to handle kernel NULL pointer dereference", Fault()),
        LinuxSubject.UserMemory => In("BUG: unable to handle kernel access to user memory", Fault()),
        LinuxSubject.StackGuard => In("BUG: stack guard page was hit", LinuxFrames.OfStall(LinuxFrames.Candidates(FaultNames(), s_none))),
        LinuxSubject.Exception => Exception(),
        LinuxSubject.DoubleFault => In("PANIC: double fault", Fault()),
        LinuxSubject.KernelBug => KernelBug(),
        LinuxSubject.InternalError => In("Internal error", Fault()),
        LinuxSubject.Warning => Warning(),
        LinuxSubject.Deadlock => In("possible deadlock", Pick(LockNames("is trying to acquire lock"), "process_one_work", "flush_workqueue", "drain_workqueue", "destroy_workqueue")),
        LinuxSubject.IrqInversion => In("possible deadlock", First(LockNames("just changed the state of lock"))),
        LinuxSubject.UnsafeOrder => In("possible deadlock", Pick(UnsafeNames())),
        LinuxSubject.InconsistentState => In("inconsistent lock state", Pick(TraceNames())),
        LinuxSubject.SuspiciousRcu => In((After(Head, "INFO: ").IsEmpty ? "WARNING" : "INFO") + ": suspicious RCU usage", Pick(TraceNames(), "rcu", "kmem", "slab")),
        LinuxSubject.UnlockBalance => In(HeadWord() + ": bad unlock balance", Pick(UnlockNames())),
        LinuxSubject.HeldLockFreed => In(HeadWord() + ": held lock freed", First(LockNames(""))),
        LinuxSubject.StillLocked => In(HeadWord() + ": still has locks held", First(LockNames(""))),
        LinuxSubject.LockedInUser => In(HeadWord() + ": lock held when returning to user space", First(LockNames("leaving the kernel with locks still held"))),
        LinuxSubject.NestedLock => In("WARNING: nested lock was not taken", Pick(TraceNames())),
        LinuxSubject.WaitContext => In("WARNING: locking bug", Pick(TraceNames(), "lock_sock", "release_sock")),
        LinuxSubject.StaticKey => In("INFO: trying to register non-static key", Pick(TraceNames(), "stack", "lock", "IRQ")),
        LinuxSubject.SleepingFunction => In("BUG: sleeping function called from invalid context", Pick(TraceNames())),
        LinuxSubject.SchedulingWhileAtomic => In("BUG: scheduling while atomic", Pick(TraceNames(), "schedule")),
        LinuxSubject.Spinlock => In("BUG: " + Before(After(Head, "BUG: "), " on "), Pick(TraceNames(), "spin_", "_lock", "_unlock")),
        LinuxSubject.LeakedLock => In("BUG: workqueue leaked lock or atomic", LastFunction()),
        LinuxSubject.Preemptible => In("BUG: using " + Before(After(Head, "BUG: using "), " in ") + " in preemptible code",
            Pick(TraceNames(), "preemption", "preempt", "debug_", "processor_id", "this_cpu")),
        LinuxSubject.BadPage => In("BUG: Bad page " + (Head.Contains("page cache", StringComparison.Ordinal) ? "cache" : "state"), Pick(BadPageNames(),
            "free_page", "put_page", "get_page", "update_page", "release_page", "free_unref", "^folio", "^_folio", "^__folio", "truncate_inode_pages", "page_frag_free", "alloc", "vmap", "page_owner")),
        LinuxSubject.MemoryLeak => In("memory leak", Pick(FramesFrom(_first + 1, false, null), "kmemleak", "mmap", "kmem", "slab", "alloc", "create_object", "idr_get", "list_lru_init", "pcpu_create")),
        LinuxSubject.HungTask => In("INFO: task hung", LinuxFrames.OfHungTask(LinuxFrames.Candidates(TraceNames(), s_none))),
        LinuxSubject.UnkillableTask => In("INFO: task can't die", Pick(TraceNames(), "schedule")),
        LinuxSubject.RcuStall => In("INFO: rcu detected stall", LinuxFrames.OfStall(LinuxFrames.Candidates(StallNames(), ["apic_timer_interrupt", "rcu"]))),
        LinuxSubject.SoftLockup => In("BUG: soft lockup", LinuxFrames.OfStall(LinuxFrames.Candidates(FaultNames(), s_none))),
        LinuxSubject.HardLockup => In("BUG: hard lockup", LinuxFrames.OfStall(LinuxFrames.Candidates(FaultNames(), s_none))),
        LinuxSubject.WorkqueueLockup => "BUG: workqueue lockup",
        _ => FirstLine(),
    };

    private string Panic()
    {
        ReadOnlySpan<char> reason = After(Head, "Kernel panic - not syncing").TrimStart(": ");
        if (reason.StartsWith("Attempted to kill init!"))
            return "kernel panic: Attempted to kill init!";
        if (reason.StartsWith("Couldn't open N_TTY ldisc"))
            return "kernel panic: Couldn't open N_TTY ldisc";
        if (reason.StartsWith("Fatal exception"))
            return "kernel panic: Fatal exception";
        if (reason.StartsWith("stack-protector:"))
        {
            ReadOnlySpan<char> place = After(reason, "corrupted in: ");
            return In("kernel panic: stack is corrupted", LinuxLines.TryFunction(place, out ReadOnlySpan<char> name) ? LinuxFrames.Plain(name) : Pick(TraceNames(), "stack_chk"));
        }

        if (reason.StartsWith("corrupted stack end"))
            return In("kernel panic: corrupted stack end", LinuxFrames.OfStall(LinuxFrames.Candidates(TraceNames(), ["schedule", "retint_kernel"])));
        if (reason.StartsWith("kernel stack overflow"))
            return In("kernel stack overflow", LinuxFrames.OfStall(LinuxFrames.Candidates(TraceNames(), ["bad_stack"])));
        return "kernel panic: " + reason.ToString();
    }

    private string Kasan()
    {
        ReadOnlySpan<char> what = After(Head, "BUG: KASAN: ");
        string type = Before(what, " ");
        string? inFunction = HeadFunction(" in ");
        if (type is "double-free" or "invalid-free")
            return In("KASAN: invalid-free", Pick(WithTrace(inFunction), "slab_", "kfree", "vunmap", "vfree"));
        string access = "";
        for (int i = _first + 1; i < _lines.Count && access.Length == 0; i++)
        {
            ReadOnlySpan<char> body = _lines[i].Body.TrimStart();
            access = body.StartsWith("Read of size ") || body.StartsWith("Read at addr ") ? " Read" : body.StartsWith("Write of size ") || body.StartsWith("Write at addr ") ? " Write" : "";
        }

        if (inFunction == null && !what.Contains(" on address", StringComparison.Ordinal) && !what.Contains(" in ", StringComparison.Ordinal))
            return "KASAN: " + what.ToString();
        return In($"KASAN: {type}{access}", Pick(WithTrace(inFunction), "kernel_fault", "tag_check", "mem_abort", "^el1_", "^el1h_"));
    }

    private string Ubsan()
    {
        string type = Before(After(Head, "UBSAN: "), " in ");
        return In("UBSAN: " + (type.StartsWith("Undefined behaviour", StringComparison.Ordinal) ? "undefined-behaviour" : type), Pick(TraceNames(), "ubsan", "overflow"));
    }

    private string Exception()
    {
        ReadOnlySpan<char> text = Head;
        while (text.StartsWith("Oops: ") && LinuxStart.IsException(text["Oops: ".Length..]))
            text = text["Oops: ".Length..];
        // Its kinds are many, and KASAN may have begun the line.
        if (text.Contains("general protection fault", StringComparison.Ordinal))
            return In("general protection fault", Fault());
        int end = text.IndexOfAny(':', ',');
        string name = (end < 0 ? text : text[..end]).ToString().Replace('_', ' ');
        return In(name == "stack segment" ? "stack segment fault" : name, Fault());
    }

    private string KernelBug()
    {
        if (Head.Contains("kernel BUG at mm/usercopy.c", StringComparison.Ordinal))
            return In("BUG: bad usercopy", Pick(TraceNames(), "usercopy", "__check"));
        return Head.Contains("kernel BUG at lib/list_debug.c", StringComparison.Ordinal)
            ? In("BUG: corrupted list", Pick(TraceNames()))
            : In("kernel BUG", Pick(FaultNames(), "^skb_"));
    }

    private string Warning()
    {
        ReadOnlySpan<char> head = After(Head, "WARNING: ");
        List<string> names = FaultNames();
        foreach ((string file, string words, string title, string[] skip) in s_helpers)
        {
            int at = head.IndexOf(file);
            if (at >= 0 && (at == 0 || head[at - 1] is ' ' or '/') && (words.Length == 0 || head[at..].Contains(words, StringComparison.Ordinal)))
                return In(title, Pick(names, skip) ?? WarningFunction());
        }

        if (head.Contains(" usb_submit_urb", StringComparison.Ordinal))
            return $"WARNING in {Pick(names, s_urb) ?? "unknown"}/usb_submit_urb";
        string? function = Pick(names) ?? WarningFunction();
        return function == null ? "WARNING" : $"WARNING in {function}";
    }

    /// <summary>The function that a warning's own line names: after the place, or after <c>at</c>.</summary>
    private string? WarningFunction()
    {
        foreach (Range part in Head.Split(' '))
        {
            if (LinuxLines.TryFunction(Head[part], out ReadOnlySpan<char> name))
                return LinuxFrames.Plain(name);
        }

        return null;
    }

    private string FirstLine()
    {
        ReadOnlySpan<char> head = Head.TrimStart("[ ");
        if (head.StartsWith("BUG: Dentry "))
            return In("BUG: Dentry still in use", "unmount");
        foreach (string words in (ReadOnlySpan<string>)["BUG: Bad page map", "BUG: Bad rss-counter state"])
        {
            if (head.StartsWith(words))
                return words;
        }

        if (head.StartsWith("WARNING: kernel stack "))
            return "WARNING: kernel stack regs has bad " + (head.Contains("'bp'", StringComparison.Ordinal) ? "'bp' value" : "value");
        if (head.StartsWith("BUG: non-zero "))
            return Before(head, " mm:").Split(':') is [var bug, var rest, ..] ? $"{bug}:{rest}" : head.ToString();
        return head.TrimEnd("] ").ToString();
    }

    private static string Before(ReadOnlySpan<char> text, string end)
    {
        int at = text.IndexOf(end);
        return (at < 0 ? text : text[..at]).TrimEnd(" ,:").ToString();
    }

    private string HeadWord() => After(Head, "BUG: ").IsEmpty ? "WARNING" : "BUG";

    private string? HeadFunction(string words) =>
        LinuxLines.TryFunction(After(Head, words), out ReadOnlySpan<char> name) ? LinuxFrames.Plain(name) : null;

    private static string? First(List<string> names) => names.Count > 0 ? names[0] : null;

    private static string? Pick(List<string> names, params string[] alsoMachinery) => First(LinuxFrames.Candidates(names, alsoMachinery));

    private string? Fault() => Pick(FaultNames());

    private string? LastFunction()
    {
        for (int i = _first + 1; i < _lines.Count; i++)
        {
            ReadOnlySpan<char> function = After(_lines[i].Body, "last function: ").Trim();
            if (!function.IsEmpty)
                return LinuxFrames.Plain(Before(function, "+"));
        }

        return null;
    }

    /// <summary>Where the kernel was, from its registers, and how it came there, from the call trace after them.</summary>
    private List<string> FaultNames()
    {
        for (int i = _first; i < _lines.Count; i++)
        {
            if (!LinuxLines.TryPointer(_lines[i].Body, out ReadOnlySpan<char> name, out bool isKernel) || !isKernel)
                continue;
            List<string> names = FramesFrom(i + 1, true, null);
            if (!name.IsEmpty)
                names.Insert(0, LinuxFrames.Plain(name));
            return names;
        }

        return TraceNames();
    }

    private List<string> TraceNames()
    {
        int trace = FindTrace(_first);
        return trace < 0 ? [] : FramesFrom(trace + 1, true, null);
    }

    private List<string> WithTrace(string? name)
    {
        List<string> names = TraceNames();
        if (name != null)
            names.Insert(0, name);
        return names;
    }

    /// <summary>What ran when the timer's interrupt found the stall; without one, what a backtrace shows.</summary>
    private List<string> StallNames()
    {
        // A few tries: each may look at all the rest.
        for (int i = _first, tries = 0; i < _lines.Count && tries < 4; i++)
        {
            ReadOnlySpan<char> body = _lines[i].Body;
            if (!body.Contains("apic_timer_interrupt", StringComparison.Ordinal) && !body.Contains("el1h_64_irq+", StringComparison.Ordinal))
                continue;
            tries++;
            List<string> names = FramesFrom(i + 1, true, null);
            for (int j = i + 1; j < Math.Min(i + 4, _lines.Count); j++)
            {
                if (LinuxLines.TryPointer(_lines[j].Body, out ReadOnlySpan<char> name, out bool isKernel) && isKernel && !name.IsEmpty)
                    names.Insert(0, LinuxFrames.Plain(name));
            }

            if (names.Count > 0)
                return names;
        }

        return FaultNames();
    }

    /// <summary>The functions that took locks, from the words on: <c>at: f+0x1/0x2</c>; then the call trace.</summary>
    private List<string> LockNames(string words)
    {
        var names = new List<string>();
        bool found = words.Length == 0;
        for (int i = _first; i < _lines.Count && names.Count < 2; i++)
        {
            ReadOnlySpan<char> body = _lines[i].Body;
            found = found || body.Contains(words, StringComparison.Ordinal);
            ReadOnlySpan<char> place = After(body, "at: ");
            if (!found || !LinuxLines.TryFrame(place, out ReadOnlySpan<char> name, out _))
                continue;
            names.Add(LinuxFrames.Plain(name));
            if (names.Count == 2)
                names.AddRange(FramesFrom(i + 1, true, null));
        }

        return names;
    }

    private List<string> UnsafeNames()
    {
        for (int i = _first; i < _lines.Count; i++)
        {
            ReadOnlySpan<char> body = _lines[i].Body;
            if (body.Contains("which became ", StringComparison.Ordinal) && body.TrimEnd().EndsWith(" at:"))
                return FramesFrom(i + 1, true, null);
        }

        return LockNames("is trying to acquire");
    }

    private List<string> UnlockNames()
    {
        for (int i = _first; i < _lines.Count; i++)
        {
            ReadOnlySpan<char> body = _lines[i].Body.TrimStart();
            if (body.StartsWith("[<") && LinuxLines.TryFrame(body, out ReadOnlySpan<char> name, out _))
                return WithTrace(LinuxFrames.Plain(name));
        }

        return TraceNames();
    }

    private List<string> BadPageNames()
    {
        for (int i = _first; i < _lines.Count; i++)
        {
            if (_lines[i].Body.Contains("page last allocated", StringComparison.Ordinal))
                return FramesFrom(i + 1, false, null);
        }

        return TraceNames();
    }

    private int FindTrace(int from)
    {
        for (int i = from; i < _lines.Count; i++)
        {
            if (LinuxLines.IsCallTrace(_lines[i].Body))
                return i;
        }

        return -1;
    }

    /// <summary>The functions of the frames from a line on that the kernel is sure of, to the next stack.</summary>
    private List<string> FramesFrom(int from, bool isTrace, string? before)
    {
        var names = new List<string>();
        if (before != null)
            names.Add(before);
        for (int i = from; i < _lines.Count && names.Count < LinuxFrames.MaximumNames; i++)
        {
            ReadOnlySpan<char> body = _lines[i].Body;
            if (LinuxLines.TryFrame(body, out ReadOnlySpan<char> name, out bool isSure))
            {
                if (isSure)
                    names.Add(LinuxFrames.Plain(name));
            }
            else if (names.Count > 0 && LinuxLines.StartsWithAny(body.TrimStart(), s_otherStacks))
            {
                break;
            }
            else if (!isTrace && LinuxLines.IsRuler(body))
            {
                break;
            }
        }

        return names;
    }
}
