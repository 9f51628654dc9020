namespace Vmm.Testing.Triage;

/// <summary>What a kernel's report is about.</summary>
public enum ReportKind
{
    /// <summary>Linux: <c>Kernel panic - not syncing</c>. OpenBSD: <c>panic:</c>.</summary>
    Panic,

    /// <summary>Linux: an oops, a general protection fault, a page fault in the kernel, <c>kernel BUG at</c>. OpenBSD: <c>Stopped at</c> without a panic (a fault in the kernel).</summary>
    Oops,

    /// <summary>Linux: <c>BUG: KASAN:</c>.</summary>
    Kasan,

    /// <summary>Linux: <c>BUG: KCSAN:</c>.</summary>
    Kcsan,

    /// <summary>Linux: <c>UBSAN:</c>.</summary>
    Ubsan,

    /// <summary>Linux: <c>WARNING: CPU:</c> and the like.</summary>
    Warning,

    /// <summary>Linux: a lock dependency or lock use that lockdep refuses.</summary>
    Lockdep,

    /// <summary>OpenBSD: a lock order or a lock left locked, by witness(4).</summary>
    Witness,

    /// <summary>Linux: <c>INFO: task ... blocked for more than</c>.</summary>
    HungTask,

    /// <summary>Linux: <c>rcu: INFO: ... detected stalls</c>.</summary>
    RcuStall,

    /// <summary>Linux: <c>watchdog: BUG: soft lockup</c>, and the hard one.</summary>
    Lockup,
}

/// <summary>A report that a kernel wrote to its console, cut out of everything else.</summary>
/// <param name="Kind">What it is about.</param>
/// <param name="Title">
/// The same for the same cause: no addresses, process numbers, times or sizes; the function in which it happened where the report says it, as
/// syzkaller does: <c>KASAN: slab-use-after-free Read in unix_release</c>, <c>panic: witness_warn</c>.
/// </param>
/// <param name="Text">Its lines, without what other processes wrote in between where that can be told; each ends in a newline.</param>
public sealed record GuestReport(ReportKind Kind, string Title, string Text);
