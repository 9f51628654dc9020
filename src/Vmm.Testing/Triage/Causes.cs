namespace Vmm.Testing.Triage;

/// <summary>
/// What a kernel reported last, by kind: a panic that only says that one of these was the reason is named after it, as the first report
/// names a crash.
/// </summary>
internal sealed class Causes
{
    private readonly Dictionary<ReportKind, string> _titles = [];
    private string? _lastWarned;
    private string? _ofInit;

    /// <summary>Another boot: what was before has led to nothing.</summary>
    public void Clear()
    {
        _titles.Clear();
        _lastWarned = null;
        _ofInit = null;
    }

    /// <summary>A report that may be the reason of a panic.</summary>
    /// <param name="kind">Its kind.</param>
    /// <param name="title">Its title.</param>
    /// <param name="isInit">Whether it ended the task with number 1.</param>
    public void Add(ReportKind kind, string title, bool isInit)
    {
        _titles[kind] = title;
        if (kind is ReportKind.Warning or ReportKind.Kasan or ReportKind.Kcsan or ReportKind.Ubsan)
            _lastWarned = title;
        if (isInit)
            _ofInit = title;
    }

    /// <summary>The title of what led to a panic; null where the panic speaks for itself.</summary>
    /// <param name="body">The panic's first line.</param>
    public string? Of(ReadOnlySpan<char> body)
    {
        ReadOnlySpan<char> reason = LinuxTitle.After(body, "Kernel panic - not syncing").TrimStart(": ");
        if (reason.StartsWith("Fatal exception") || reason.StartsWith("Aiee, killing interrupt handler") || reason.StartsWith("Attempted to kill the idle task"))
            return _titles.GetValueOrDefault(ReportKind.Oops);
        if (reason.StartsWith("Attempted to kill init!"))
            return _ofInit;
        if (reason.Contains("panic_on_warn set", StringComparison.Ordinal))
            return _lastWarned;
        if (reason.StartsWith("kasan.fault="))
            return _titles.GetValueOrDefault(ReportKind.Kasan);
        if (reason.StartsWith("hung_task: blocked tasks"))
            return _titles.GetValueOrDefault(ReportKind.HungTask);
        if (reason.StartsWith("softlockup: hung tasks") || reason.StartsWith("Hard LOCKUP") || reason.StartsWith("workqueue lockup") || reason.StartsWith("hard LOCKUP"))
            return _titles.GetValueOrDefault(ReportKind.Lockup);
        return reason.StartsWith("RCU Stall") ? _titles.GetValueOrDefault(ReportKind.RcuStall) : null;
    }
}
