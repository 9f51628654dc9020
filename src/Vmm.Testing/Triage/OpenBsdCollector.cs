namespace Vmm.Testing.Triage;

/// <summary>One report of an OpenBSD kernel, up to ddb's prompt, the machine's end, or the next report.</summary>
internal sealed class OpenBsdCollector : ReportCollector
{
    /// <summary>How many lines in a row that look like nothing known a report survives: long lines come in pieces.</summary>
    private const int Patience = 12;

    /// <summary>The same within a report of witness(4), after which the machine may just go on.</summary>
    private const int WitnessPatience = 2;

    private ReportKind _kind;
    private bool _isStopped;
    private bool _isGo;
    private int _others;
    private int _wholeLines;

    private OpenBsdCollector(ReportKind kind, in ConsoleLine line)
    {
        _kind = kind;
        _isStopped = line.Body.StartsWith("Stopped at ");
        AddOwn(line);
    }

    /// <summary>Begins a report where a line does.</summary>
    public static OpenBsdCollector? Begin(in ConsoleLine line)
    {
        ReadOnlySpan<char> body = line.Body;
        if (body.StartsWith("panic: ") || body.StartsWith("cleaned vnode: "))
            return new OpenBsdCollector(ReportKind.Panic, line);
        if (body.StartsWith("witness: ") || body.StartsWith("lock order reversal:"))
            return new OpenBsdCollector(ReportKind.Witness, line);
        bool isFault = body.StartsWith("uvm_fault(") || (body.StartsWith("kernel: ") && body.Contains(" trap, code=", StringComparison.Ordinal))
            || body.StartsWith("fatal page fault in supervisor mode") || body.StartsWith("fatal protection fault in supervisor mode");
        return isFault || (body.StartsWith("Stopped at ") && body.Contains('+')) ? new OpenBsdCollector(ReportKind.Oops, line) : null;
    }

    /// <summary>Whether another report's first line goes on with this one: what a fault says, and what witness(4) stops for.</summary>
    public bool Absorbs(in ConsoleLine line) => line.Body switch
    {
        var body when body.StartsWith("panic: ") => _kind != ReportKind.Witness,
        var body when body.StartsWith("Stopped at ") => true,
        var body when body.StartsWith("witness: ") || body.StartsWith("lock order reversal:") => false,
        _ => _kind != ReportKind.Witness,
    };

    /// <summary>A line: it is taken, or ends the report.</summary>
    public void Take(in ConsoleLine line)
    {
        ReadOnlySpan<char> body = line.Body;
        _isGo |= body.StartsWith("goroutine ") || body.StartsWith("[signal SIG");
        if (body.StartsWith("panic: ") && _kind == ReportKind.Oops)
            _kind = ReportKind.Panic;
        _isStopped |= body.StartsWith("Stopped at ");
        bool shaped = OpenBsdLines.IsCrash(body) || (_kind == ReportKind.Witness && OpenBsdLines.IsWitness(body));
        bool isLast = OpenBsdLines.IsLastBeforeDdb(body) || OpenBsdLines.IsLast(body);
        if (shaped || isLast)
        {
            AddOwn(line);
            if (isLast)
                Finish();
            return;
        }

        if (!Add(line))
            return;
        if (++_others > (_kind == ReportKind.Witness && !_isStopped ? WitnessPatience : Patience))
            Finish();
    }

    protected override GuestReport? Make()
    {
        Cut(Lines.Count > 0 && _others > 0 && (_others > WitnessPatience || _kind == ReportKind.Witness) ? _wholeLines : Lines.Count);
        // A Go program's panic is no kernel's.
        return _isGo || Lines.Count == 0 ? null : new GuestReport(_kind, OpenBsdTitle.Make(Lines), Text());
    }

    private void AddOwn(in ConsoleLine line)
    {
        if (!Add(line))
            return;
        _others = 0;
        _wholeLines = Lines.Count;
    }
}
