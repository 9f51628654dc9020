using System.Text;

namespace Vmm.Machine.Console;

/// <summary>The last lines of a console, for the report of a crash; bounded in bytes and in lines.</summary>
internal sealed class LastLines
{
    private const int Capacity = 8 * 1024;
    private const int Lines = 40;

    private readonly byte[] _buffer = new byte[Capacity];
    private int _end;
    private bool _wrapped;

    internal void Append(ReadOnlySpan<byte> data)
    {
        if (data.Length > Capacity)
            data = data[^Capacity..];
        int first = Math.Min(data.Length, Capacity - _end);
        data[..first].CopyTo(_buffer.AsSpan(_end));
        data[first..].CopyTo(_buffer);
        _end += data.Length;
        if (_end >= Capacity)
        {
            _end -= Capacity;
            _wrapped = true;
        }
    }

    /// <summary>
    /// The lines, separated by newlines. Control characters are dots: the text is the guest's, and is shown on somebody's terminal.
    /// </summary>
    public override string ToString()
    {
        byte[] bytes = _wrapped ? [.. _buffer.AsSpan(_end), .. _buffer.AsSpan(0, _end)] : _buffer[.._end];
        string[] lines = Encoding.UTF8.GetString(bytes).TrimEnd('\r', '\n').Split('\n');
        int skip = Math.Max(0, lines.Length - Lines);
        var text = new StringBuilder();
        foreach (string line in lines.AsSpan(skip))
        {
            if (text.Length > 0)
                text.Append('\n');
            foreach (char c in line.AsSpan().TrimEnd('\r'))
                text.Append(char.IsControl(c) && c != '\t' ? '.' : c);
        }

        return text.ToString();
    }
}
