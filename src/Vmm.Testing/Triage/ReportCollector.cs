using System.Text;

namespace Vmm.Testing.Triage;

/// <summary>A report that is being cut out of a console: bounded, and finished once.</summary>
internal abstract class ReportCollector
{
    /// <summary>The most bytes of UTF-8 in a report.</summary>
    internal const int MaximumBytes = 256 * 1024;

    /// <summary>The most lines in a report.</summary>
    internal const int MaximumLines = 4000;

    private readonly List<ConsoleLine> _lines = [];
    private int _bytes;

    /// <summary>Whether nothing will be added any more.</summary>
    public bool IsFinished { get; private set; }

    /// <summary>The report, once it is finished; null where what looked like one was none.</summary>
    public GuestReport? Report { get; private set; }

    /// <summary>What it has so far.</summary>
    protected List<ConsoleLine> Lines => _lines;

    /// <summary>Adds nothing any more, and makes the report.</summary>
    public void Finish()
    {
        if (IsFinished)
            return;
        IsFinished = true;
        Report = Make();
        _lines.Clear();
        _lines.TrimExcess();
    }

    /// <summary>The report of what was collected.</summary>
    protected abstract GuestReport? Make();

    /// <summary>Adds a line; where there is no room for it, the report is finished instead.</summary>
    protected bool Add(in ConsoleLine line)
    {
        int bytes = Encoding.UTF8.GetByteCount(line.Text) + 1;
        if (_lines.Count == MaximumLines || bytes > MaximumBytes - _bytes)
        {
            Finish();
            return false;
        }

        _bytes += bytes;
        _lines.Add(line);
        return true;
    }

    /// <summary>Takes back what was added after a number of lines.</summary>
    protected void Cut(int lines)
    {
        for (int i = _lines.Count - 1; i >= lines; i--)
            _bytes -= Encoding.UTF8.GetByteCount(_lines[i].Text) + 1;
        _lines.RemoveRange(lines, _lines.Count - lines);
    }

    /// <summary>The lines, each with a newline.</summary>
    protected string Text()
    {
        var text = new StringBuilder(_bytes);
        foreach (ConsoleLine line in _lines)
            text.Append(line.Text).Append('\n');
        return text.ToString();
    }
}
