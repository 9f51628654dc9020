namespace Vmm.Testing.Triage;

/// <summary>
/// One report of a Linux kernel, from its first line to its last. Lines that are not by its writer are left out where the kernel says who
/// wrote what; where it does not, those that do not look like part of the report are left out of its strict parts, and end it where
/// there are too many of them.
/// </summary>
internal sealed class LinuxCollector : ReportCollector
{
    /// <summary>How many lines in a row of others the strict parts of a report survive.</summary>
    private const int Patience = 16;

    /// <summary>How many lines in a row that could be anything are taken where a report has free text.</summary>
    private const int FreeLines = 120;

    /// <summary>How much later than its last line, in microseconds of the kernel's clock, a whole report does not go on.</summary>
    private const long LateWhenWhole = 1_000_000;

    /// <summary>The same for one whose end is still missing.</summary>
    private const long LateWhenOpen = 60_000_000;

    private LinuxStart _start;
    private LinuxSubject _subject;
    private readonly Causes _causes;
    private readonly int _first;
    private readonly bool _isTimed;
    private readonly Caller _caller;
    private long _lastTime;
    private bool _allCpus;
    private bool _sawRegisters;
    private bool _inTrace;
    private bool _isWhole;
    private bool _afterModules;
    private bool _sawLock;
    private int _others;
    private int _wholeLines;
    private bool _isInit;
    private ConsoleLine? _blank;

    /// <summary>Begins a report.</summary>
    /// <param name="start">What its first line says.</param>
    /// <param name="line">Its first line.</param>
    /// <param name="introduction">Lines before it that belong to it.</param>
    /// <param name="causes">What may have led to it, and what it may lead to.</param>
    public LinuxCollector(LinuxStart start, in ConsoleLine line, IReadOnlyList<ConsoleLine> introduction, Causes causes)
    {
        _start = start;
        _subject = start.Subject;
        _causes = causes;
        _isTimed = line.IsTimed;
        _caller = line.Caller;
        _lastTime = line.Time;
        foreach (ConsoleLine before in introduction)
            Add(before);
        _first = introduction.Count;
        Add(line);
        _wholeLines = _first + 1;
        if (start.Shape == LinuxShape.Line)
            Finish();
    }

    /// <summary>Whether lines of equals signs are its own.</summary>
    public bool HasRulers => _start.Shape is LinuxShape.Framed or LinuxShape.Stall;

    /// <summary>Whether a line may be by the writer of this report.</summary>
    public bool IsWriter(in ConsoleLine line) =>
        _caller.IsKnown ? line.Caller == _caller || (_allCpus && line.Caller.IsCpu) : !_isTimed || line.IsTimed;

    /// <summary>
    /// Whether a first line is only another first line of this report: the <c>Oops: 0000 [#1]</c> after <c>BUG: ...</c>, and the panic that old
    /// kernels (before 5.11) go into before they have said anything of the warning that it is for.
    /// </summary>
    public bool Absorbs(LinuxStart start) =>
        (_start.Subject is LinuxSubject.Warning or LinuxSubject.SchedulingWhileAtomic && !_sawRegisters && !_inTrace && start.Kind == ReportKind.Panic)
        || (_start.Shape == LinuxShape.Oops && !_sawRegisters && start.Subject is LinuxSubject.Exception or LinuxSubject.InternalError or LinuxSubject.UserMemory or LinuxSubject.DoubleFault)
        || (_start.Subject == LinuxSubject.WorkqueueLockup && start.Subject == LinuxSubject.WorkqueueLockup && !_inTrace);

    /// <summary>Ends it where a line, by whomever, comes so late that it cannot go on.</summary>
    public void Notice(in ConsoleLine line)
    {
        if (line.IsTimed && _lastTime >= 0 && line.Time - _lastTime > (_isWhole ? LateWhenWhole : LateWhenOpen) && _start.Shape != LinuxShape.Panic)
            Finish();
    }

    /// <summary>A line of its writer: it is taken, left out, or ends the report.</summary>
    public void Take(in ConsoleLine line)
    {
        Notice(line);
        if (IsFinished)
            return;
        ReadOnlySpan<char> body = line.Body;
        if (_start.Shape != LinuxShape.Panic && LinuxStart.TryParse(body, out LinuxStart start) && start.Kind == ReportKind.Panic)
            _start = start;
        switch (_start.Shape)
        {
            case LinuxShape.Oops:
                TakeOops(line, body);
                break;
            case LinuxShape.Warning:
                TakeStrictly(line, LinuxLines.IsCommon(body));
                _sawRegisters |= LinuxLines.TryPointer(body, out _, out _) || LinuxLines.IsCallTrace(body);
                if (LinuxLines.IsEndOfTrace(body))
                    Finish();
                break;
            case LinuxShape.Framed:
                TakeFreely(line, LinuxLines.IsCommon(body) || LinuxLines.IsMemory(body));
                if (LinuxLines.IsRuler(body) || LinuxLines.IsEndOfTrace(body))
                    Finish();
                break;
            case LinuxShape.Traced:
                TakeTraced(line, body);
                break;
            case LinuxShape.Stall:
                TakeStall(line, body);
                break;
            case LinuxShape.Locks:
                TakeLocks(line, body);
                break;
            default:
                TakeFreely(line, LinuxLines.IsCommon(body));
                if (LinuxLines.IsEndOfPanic(body) || body.StartsWith("Rebooting in "))
                    Finish();
                break;
        }
    }

    protected override GuestReport Make()
    {
        if (_others > 0 && (_inTrace || _others > FreeLines))
            Cut(_wholeLines);
        string title = LinuxTitle.Make(_subject, Lines, _first);
        if (_subject == LinuxSubject.Panic)
            title = _causes.Of(Lines[_first].Body) ?? title;
        else
            _causes.Add(_start.Kind, title, _isInit);
        return new GuestReport(_start.Kind, title, Text());
    }

    private void TakeOops(in ConsoleLine line, ReadOnlySpan<char> body)
    {
        if (_isWhole)
        {
            // What comes after the end belongs to it while it is registers, the kernel's offset, or what becomes of the task.
            if (LinuxLines.IsCommon(body) || body.StartsWith("note: ") || body.StartsWith("Fixing recursive fault"))
                Add(line);
            else
                Finish();
            return;
        }

        bool isRegister = LinuxLines.TryPointer(body, out _, out _) || LinuxLines.IsCallTrace(body);
        TakeStrictly(line, isRegister || LinuxLines.IsCommon(body) || LinuxLines.IsOops(body));
        _sawRegisters |= isRegister;
        _isInit |= body.StartsWith("CPU: ") && body.Contains(" PID: 1 ", StringComparison.Ordinal);
        _isWhole |= LinuxLines.IsEndOfTrace(body);
    }

    private void TakeTraced(in ConsoleLine line, ReadOnlySpan<char> body)
    {
        bool common = LinuxLines.IsCommon(body);
        _inTrace |= LinuxLines.IsCallTrace(body);
        if (!_inTrace)
        {
            TakeFreely(line, common || LinuxLines.IsHeldLock(body));
            return;
        }

        TakeStrictly(line, common);
        if (LinuxLines.IsEndOfTask(body))
            Finish();
    }

    private void TakeStall(in ConsoleLine line, ReadOnlySpan<char> body)
    {
        bool shaped = LinuxLines.IsStall(body) || LinuxLines.IsCommon(body);
        if (_isWhole && !shaped)
        {
            // A blank line belongs to what follows, if that belongs to it.
            if (body.Trim().IsEmpty && _blank == null)
                _blank = line;
            else
                Finish();
            return;
        }

        if (_blank is ConsoleLine blank)
            AddOwn(blank);
        _blank = null;

        _allCpus |= body.StartsWith("Sending NMI ");
        TakeStrictly(line, shaped);
        if (LinuxLines.IsEndOfTask(body))
            _isWhole = true;
        else if (LinuxLines.IsCallTrace(body))
            _isWhole = false;
    }

    private void TakeLocks(in ConsoleLine line, ReadOnlySpan<char> body)
    {
        bool isLock = LinuxLines.IsHeldLock(body);
        if (_sawLock && !isLock)
        {
            Finish();
            return;
        }

        // The head of the list is not the list.
        _sawLock |= isLock && body.TrimStart().StartsWith("#");
        _isWhole |= _sawLock;
        TakeFreely(line, isLock);
    }

    /// <summary>Takes what looks like part of the report, and leaves out what does not.</summary>
    private void TakeStrictly(in ConsoleLine line, bool shaped)
    {
        shaped |= _afterModules && LinuxLines.IsModules(line.Body);
        if (!shaped)
        {
            if (++_others > Patience)
                Finish();
            return;
        }

        _afterModules = line.Body.StartsWith("Modules linked in:") || (_afterModules && LinuxLines.IsModules(line.Body));
        AddOwn(line);
    }

    /// <summary>Takes anything, until too much of it does not look like part of the report.</summary>
    private void TakeFreely(in ConsoleLine line, bool shaped)
    {
        if (shaped)
        {
            AddOwn(line);
            return;
        }

        if (!Add(line))
            return;
        if (++_others > FreeLines)
            Finish();
    }

    private void AddOwn(in ConsoleLine line)
    {
        if (!Add(line))
            return;
        _others = 0;
        _wholeLines = Lines.Count;
        _lastTime = Math.Max(_lastTime, line.Time);
    }
}
