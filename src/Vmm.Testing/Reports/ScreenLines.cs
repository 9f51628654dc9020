using System.Text;
using Spectre.Console;
using Spectre.Console.Rendering;

namespace Vmm.Testing.Reports;

/// <summary>Lines of text in one or more styles, as they are: nothing in them is markup, and nothing is wrapped.</summary>
/// <param name="eraseBelow">Whether what is on the screen from here on is erased first.</param>
internal sealed class ScreenLines(bool eraseBelow = false) : IRenderable
{
    private readonly List<Segment> _segments = eraseBelow ? [Segment.Control("\e[J")] : [];
    private int _widest;

    /// <summary>How many lines it has.</summary>
    internal int Count { get; private set; }

    /// <summary>Adds a line of one style.</summary>
    internal void Add(string text, Style? style = null) => Add("", null, text, style);

    /// <summary>Adds a line whose beginning has a style of its own.</summary>
    internal void Add(string begin, Style? beginStyle, string text, Style? style = null)
    {
        if (begin.Length > 0)
            _segments.Add(new Segment(begin, beginStyle ?? Style.Plain));
        if (text.Length > 0)
            _segments.Add(new Segment(text, style ?? Style.Plain));
        _segments.Add(Segment.LineBreak);
        _widest = Math.Max(_widest, begin.Length + text.Length);
        Count++;
    }

    /// <summary>Adds a line that may be wider than the screen: its further lines are indented, so that none begins as another's does.</summary>
    internal void AddWrapped(string begin, Style? beginStyle, string text, int width, Style? style = null)
    {
        const string Indentation = "        ";
        int at = 0;
        int cells = begin.Length;
        int from = 0;
        foreach (Rune rune in text.EnumerateRunes())
        {
            int wide = rune.IsAscii ? 1 : new Segment(rune.ToString()).CellCount();
            if (cells + wide > width && at > from)
            {
                Add(begin, beginStyle, text[from..at], style);
                (begin, beginStyle, cells, from) = (Indentation, null, Indentation.Length, at);
            }

            cells += wide;
            at += rune.Utf16SequenceLength;
        }

        Add(begin, beginStyle, text[from..], style);
    }

    public Measurement Measure(RenderOptions options, int maxWidth) => new(Math.Min(_widest, maxWidth), Math.Min(_widest, maxWidth));

    public IEnumerable<Segment> Render(RenderOptions options, int maxWidth) => _segments;
}
