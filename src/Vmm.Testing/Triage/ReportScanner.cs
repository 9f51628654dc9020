namespace Vmm.Testing.Triage;

/// <summary>
/// Recognises the crash reports of Linux and OpenBSD kernels in a console, and cuts them out. What it is fed comes from a guest: every
/// line takes time linear in its length, a report has at most 256 KiB and 4000 lines, a line at most 8 KiB, and nothing throws.
/// Not safe for several threads at once.
/// <para>
/// A panic is a report of its own; where it only says what led to it (<c>Fatal exception</c>, <c>panic_on_warn set</c>), it is named after that
/// report, so that the first report names the crash. Kernels before 5.11 panic on a warning before they have said anything of it: that is one
/// report, a panic, named after the warning.
/// </para>
/// </summary>
public sealed class ReportScanner
{
    /// <summary>The most reports that are collected at once; kernels that say who writes can interleave as many.</summary>
    private const int MaximumOpen = 4;

    /// <summary>The most reports that wait, complete, for one that began earlier.</summary>
    private const int MaximumBehind = 16;

    /// <summary>The most reports that wait to be taken; later ones are lost, as the first ones say what went wrong.</summary>
    internal const int MaximumWaiting = 64;

    /// <summary>The most lines between <c>cut here</c>, or a line of equals signs, and the first line of the report.</summary>
    private const int MaximumIntroduction = 8;

    /// <summary>How far the kernel's clock may seem to go back within one boot, in microseconds: CPUs print as they come.</summary>
    private const long ClockNoise = 1_000_000;

    private readonly List<ReportCollector> _open = [];
    private readonly Queue<GuestReport> _waiting = new();
    private readonly List<List<ConsoleLine>> _introductions = [];
    private readonly Causes _causes = new();
    private long _lastTime = -1;
    private bool _isLinux;
    private bool _inDdb;

    /// <summary>Whether a report has begun and its end has not come: what the console is silent about may still follow.</summary>
    public bool IsCollecting => _open.Exists(collector => !collector.IsFinished);

    /// <summary>A finished line of the console.</summary>
    /// <param name="line">Its text without newline, carriage return and ANSI sequences; invalid UTF-8 replaced.</param>
    public void Line(string line)
    {
        ArgumentNullException.ThrowIfNull(line);
        ConsoleLine parsed = ConsoleLine.Parse(line);
        ReadOnlySpan<char> body = parsed.Body;
        if (LinuxLines.IsBoot(body) || (parsed.IsTimed && parsed.Time < _lastTime - ClockNoise) || OpenBsdLines.IsBoot(body))
            Reboot();
        if (parsed.IsTimed)
            _lastTime = Math.Max(_lastTime, parsed.Time);
        _isLinux |= parsed.IsTimed || body.StartsWith("Linux version ");

        if (LinuxStart.TryParse(body, out LinuxStart start))
            Begin(start, parsed);
        else if (_isLinux)
            GoOn(parsed);
        else if (!OpenBsd(parsed))
            GoOn(parsed);
        Release();
    }

    /// <summary>
    /// The machine has ended: what is being collected is complete as it is. Also to be called where the console has been silent for so long that
    /// nothing more is expected; lines that come later begin anew.
    /// </summary>
    public void End()
    {
        foreach (ReportCollector collector in _open)
            collector.Finish();
        Release();
    }

    /// <summary>Takes the next complete report, in the order in which they began.</summary>
    /// <param name="report">The report.</param>
    /// <returns>False where there is none.</returns>
    public bool TryTake(out GuestReport report) => _waiting.TryDequeue(out report!);

    private void Reboot()
    {
        End();
        _introductions.Clear();
        _causes.Clear();
        _lastTime = -1;
        _isLinux = false;
        _inDdb = false;
    }

    private void Begin(LinuxStart start, in ConsoleLine line)
    {
        _isLinux = true;
        foreach (ReportCollector collector in _open)
        {
            if (collector is LinuxCollector linux && !linux.IsFinished && linux.IsWriter(line) && linux.Absorbs(start))
            {
                linux.Take(line);
                return;
            }
        }

        int unfinished = 0;
        for (int i = _open.Count - 1; i >= 0; i--)
        {
            ReportCollector collector = _open[i];
            if (collector.IsFinished)
                continue;
            // Writers that are known apart go on side by side.
            if (!line.Caller.IsKnown || collector is not LinuxCollector linux || linux.IsWriter(line) || ++unfinished == MaximumOpen)
                collector.Finish();
        }

        List<ConsoleLine>? introduction = FindIntroduction(line);
        _open.Add(new LinuxCollector(start, line, introduction ?? [], _causes));
        if (introduction != null)
            _introductions.Remove(introduction);
    }

    private void GoOn(in ConsoleLine line)
    {
        ReadOnlySpan<char> body = line.Body;
        bool isCut = LinuxLines.IsCutHere(body);
        bool isTaken = false;
        foreach (ReportCollector collector in _open)
        {
            if (collector is not LinuxCollector linux || linux.IsFinished)
                continue;
            bool isOwn = linux.IsWriter(line) && !isCut;
            if (isOwn && LinuxLines.IsRuler(body))
                isTaken |= linux.HasRulers;
            if (isOwn)
                linux.Take(line);
            else
                linux.Notice(line);
        }

        Introduce(line, isCut || (!isTaken && LinuxLines.IsRuler(body)));
    }

    /// <summary>Keeps what may introduce a report: what comes after <c>cut here</c> and the like, by the same writer.</summary>
    private void Introduce(in ConsoleLine line, bool begins)
    {
        List<ConsoleLine>? introduction = FindIntroduction(line);
        bool explains = LinuxLines.IsExplanation(line.Body);
        bool goesOn = introduction?.Count == 1 && LinuxLines.IsCutHere(line.Body) && LinuxLines.IsExplanation(introduction[0].Body);
        if (introduction != null && ((begins && !goesOn) || explains || introduction.Count == MaximumIntroduction))
        {
            _introductions.Remove(introduction);
            introduction = null;
        }

        if (introduction != null)
        {
            introduction.Add(line);
        }
        else if (begins || explains)
        {
            if (_introductions.Count == MaximumOpen)
                _introductions.RemoveAt(0);
            _introductions.Add([line]);
        }
    }

    private List<ConsoleLine>? FindIntroduction(ConsoleLine line) =>
        _introductions.Find(lines => lines[0].Caller == line.Caller && lines[0].IsTimed == line.IsTimed);

    /// <summary>A line that may be OpenBSD's; false where it is nothing of its reports.</summary>
    private bool OpenBsd(in ConsoleLine line)
    {
        ReadOnlySpan<char> body = line.Body;
        OpenBsdCollector? current = _open.Count > 0 && !_open[^1].IsFinished ? _open[^1] as OpenBsdCollector : null;
        if (DdbPrompt.TryParse(body, out _, out int end) && DdbPrompt.Find(body) == 0)
        {
            current?.Finish();
            // What ddb prints is no new report, until it is told to go on.
            _inDdb = !(body[end..].Trim() is "c" or "continue" || body[end..].StartsWith("boot "));
            return true;
        }

        if (_inDdb)
            return true;
        if (current != null)
        {
            OpenBsdCollector? next = OpenBsdCollector.Begin(line);
            if (next == null || current.Absorbs(line))
                current.Take(line);
            else
                Replace(current, next);
            _inDdb = OpenBsdLines.IsLastBeforeDdb(body);
            return true;
        }

        if (OpenBsdCollector.Begin(line) is not OpenBsdCollector begun)
            return false;
        Replace(null, begun);
        return true;
    }

    private void Replace(OpenBsdCollector? current, OpenBsdCollector next)
    {
        current?.Finish();
        End();
        _open.Add(next);
    }

    /// <summary>Hands out what is complete, the earliest first: one that began earlier is waited for.</summary>
    private void Release()
    {
        if (_open.Count > MaximumBehind)
            _open[0].Finish();
        while (_open.Count > 0 && _open[0].IsFinished)
        {
            if (_open[0].Report is GuestReport report && _waiting.Count < MaximumWaiting)
                _waiting.Enqueue(report);
            _open.RemoveAt(0);
        }
    }
}
