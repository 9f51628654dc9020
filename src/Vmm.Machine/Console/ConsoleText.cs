using System.Text;

namespace Vmm.Machine.Console;

/// <summary>
/// Makes text of a console's bytes: UTF-8 with what is none replaced, lines that end in a newline, carriage returns and escape sequences
/// (ECMA-48 §5.4 CSI, §5.6 control strings) left out. What comes out does not depend on how the bytes were cut into pieces, but for how often an unfinished
/// line is told.
/// </summary>
internal sealed class ConsoleText
{
    /// <summary>A guest that never ends its line must not fill the host's memory.</summary>
    internal const int MaximumLine = 8192;

    /// <summary>A control string longer than this was none, or has lost its end.</summary>
    private const int MaximumControlString = 1024;

    private const byte Escape = 0x1B, Bell = 0x07, Delete = 0x7F;

    private readonly Decoder _decoder = Encoding.UTF8.GetDecoder();
    private readonly StringBuilder _line = new();
    private readonly byte[] _clean = new byte[1024];
    private readonly char[] _characters = new char[1024 + 2];
    private State _state;
    private int _controlLength;

    private enum State
    {
        Text,
        Escaped,
        Intermediate,
        Sequence,
        String,
        StringEscaped,
    }

    /// <summary>Takes bytes.</summary>
    /// <param name="data">What the guest wrote.</param>
    /// <param name="at">When.</param>
    /// <param name="listener">Told of what it makes.</param>
    internal void Append(ReadOnlySpan<byte> data, TimeSpan at, IConsoleListener listener)
    {
        int clean = 0;
        bool grown = false;
        foreach (byte b in data)
        {
            if (!Passes(b))
                continue;
            if (b == (byte)'\n')
            {
                grown |= Decode(clean, flush: true, at, listener);
                clean = 0;
                EndLine(at, listener);
                grown = false;
                continue;
            }
            _clean[clean++] = b;
            if (clean < _clean.Length)
                continue;
            grown |= Decode(clean, flush: false, at, listener);
            clean = 0;
        }
        grown |= Decode(clean, flush: false, at, listener);
        if (grown && _line.Length > 0)
            listener.Unfinished(at, _line.ToString());
    }

    /// <summary>No more comes: a line that has not ended ends now.</summary>
    internal void End(TimeSpan at, IConsoleListener listener)
    {
        Decode(0, flush: true, at, listener);
        if (_line.Length > 0)
            EndLine(at, listener);
    }

    private void EndLine(TimeSpan at, IConsoleListener listener)
    {
        string line = _line.ToString();
        _line.Clear();
        listener.Line(at, line);
    }

    private bool Decode(int length, bool flush, TimeSpan at, IConsoleListener listener)
    {
        if (length == 0 && !flush)
            return false;
        int count = _decoder.GetChars(_clean.AsSpan(0, length), _characters, flush);
        ReadOnlySpan<char> rest = _characters.AsSpan(0, count);
        while (_line.Length + rest.Length > MaximumLine)
        {
            int fits = MaximumLine - _line.Length;
            _line.Append(rest[..fits]);
            rest = rest[fits..];
            EndLine(at, listener);
        }
        _line.Append(rest);
        return count > 0;
    }

    /// <summary>Whether a byte is text, or the end of a line; keeps track of sequences.</summary>
    private bool Passes(byte b)
    {
        switch (_state)
        {
            case State.Escaped:
                _controlLength = 0;
                _state = b switch
                {
                    (byte)'[' => State.Sequence,
                    (byte)']' or (byte)'P' or (byte)'X' or (byte)'^' or (byte)'_' => State.String,
                    >= 0x20 and <= 0x2F => State.Intermediate,
                    Escape => State.Escaped,
                    _ => State.Text,
                };
                // A line's end is one whatever stood before it.
                return b == (byte)'\n';
            case State.Intermediate:
                return Ends(b, b is < 0x20 or > 0x2F);
            case State.Sequence:
                return Ends(b, b is >= 0x40 and <= 0x7E);
            case State.String:
                if (b == Escape)
                {
                    _state = State.StringEscaped;
                    return false;
                }
                return Ends(b, b == Bell);
            case State.StringEscaped:
                _state = b == (byte)'\\' ? State.Text : State.String;
                return false;
            default:
                if (b == Escape)
                {
                    _state = State.Escaped;
                    return false;
                }
                return b is (byte)'\t' or (byte)'\n' || (b >= 0x20 && b != Delete);
        }
    }

    private bool Ends(byte b, bool last)
    {
        if (b == (byte)'\n' || last || ++_controlLength > MaximumControlString)
            _state = State.Text;
        else if (b == Escape)
            _state = State.Escaped;
        return b == (byte)'\n';
    }
}
