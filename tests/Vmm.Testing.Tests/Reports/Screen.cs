using System.Globalization;

namespace Vmm.Testing.Tests.Reports;

/// <summary>A terminal of so many columns and rows as far as a display needs one: what is on it, what has scrolled away, and whether the cursor shows.</summary>
internal sealed class Screen(int columns, int rows)
{
    private readonly List<char[]> _lines = [.. Enumerable.Range(0, rows).Select(_ => Blank(columns))];
    private readonly List<string> _scrolledAway = [];
    private int _row;
    private int _column;
    private string _sequence = "";

    internal bool CursorShown { get; private set; } = true;

    /// <summary>How often a line ran over the last column.</summary>
    internal int Wraps { get; private set; }

    /// <summary>Everything from the top of the scrolled part to the last line that is not empty.</summary>
    internal List<string> Lines
    {
        get
        {
            List<string> lines = [.. _scrolledAway, .. _lines.Select(line => new string(line).TrimEnd())];
            while (lines is [.., ""])
                lines.RemoveAt(lines.Count - 1);
            return lines;
        }
    }

    internal void Feed(string text)
    {
        foreach (char c in text)
        {
            if (_sequence.Length > 0)
            {
                _sequence += c;
                if (char.IsAsciiLetter(c))
                {
                    Sequence(_sequence);
                    _sequence = "";
                }
            }
            else if (c == '\e')
            {
                _sequence = "\e";
            }
            else if (c == '\r')
            {
                _column = 0;
            }
            else if (c == '\n')
            {
                // As a terminal in its usual mode: the kernel adds the carriage return.
                _column = 0;
                Down();
            }
            else
            {
                Assert.False(char.IsControl(c), $"control character {(int)c:x}");
                Put(c);
            }
        }
    }

    private static char[] Blank(int columns)
    {
        char[] line = new char[columns];
        line.AsSpan().Fill(' ');
        return line;
    }

    private void Put(char c)
    {
        if (_column == columns)
        {
            Wraps++;
            _column = 0;
            Down();
        }

        _lines[_row][_column++] = c;
    }

    private void Down()
    {
        if (++_row < rows)
            return;
        _row = rows - 1;
        _scrolledAway.Add(new string(_lines[0]).TrimEnd());
        _lines.RemoveAt(0);
        _lines.Add(Blank(columns));
    }

    private void Sequence(string sequence)
    {
        Assert.StartsWith("\e[", sequence, StringComparison.Ordinal);
        string parameters = sequence[2..^1];
        int number = int.TryParse(parameters, CultureInfo.InvariantCulture, out int parsed) ? parsed : -1;
        switch (sequence[^1])
        {
            case 'm':
                break;
            case 'A':
                // 0 is 1, as in xterm.
                _row = Math.Max(0, _row - Math.Max(1, number));
                break;
            case 'K' when number is -1 or 0:
                _lines[_row].AsSpan(Math.Min(_column, columns)).Fill(' ');
                break;
            case 'K' when number == 2:
                _lines[_row].AsSpan().Fill(' ');
                break;
            case 'J' when number is -1 or 0:
                _lines[_row].AsSpan(Math.Min(_column, columns)).Fill(' ');
                for (int row = _row + 1; row < rows; row++)
                    _lines[row].AsSpan().Fill(' ');
                break;
            case 'h' when parameters == "?25":
                CursorShown = true;
                break;
            case 'l' when parameters == "?25":
                CursorShown = false;
                break;
            default:
                Assert.Fail($"unknown sequence {sequence[1..]}");
                break;
        }
    }
}
