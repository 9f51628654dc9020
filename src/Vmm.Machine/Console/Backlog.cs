using System.Text;

namespace Vmm.Machine.Console;

/// <summary>
/// Output that came while nobody was connected: the newest MiB of it, kept for the next client. When older output had to go, the
/// client is told how much.
/// </summary>
internal sealed class Backlog(int capacity = Backlog.DefaultCapacity)
{
    internal const int DefaultCapacity = 1 << 20;

    private byte[]? _buffer;
    private int _start;
    private int _count;
    private long _dropped;
    private byte[] _marker = [];
    private int _markerAt;

    internal bool IsEmpty => _count == 0 && _markerAt == _marker.Length;

    internal void Append(ReadOnlySpan<byte> data)
    {
        byte[] buffer = _buffer ??= new byte[capacity];
        if (data.Length > capacity)
        {
            _dropped += data.Length - capacity;
            data = data[^capacity..];
        }

        int over = Math.Max(0, _count + data.Length - capacity);
        _dropped += over;
        _start = (_start + over) % capacity;
        _count -= over;

        int end = (_start + _count) % capacity;
        int first = Math.Min(data.Length, capacity - end);
        data[..first].CopyTo(buffer.AsSpan(end));
        data[first..].CopyTo(buffer);
        _count += data.Length;
    }

    /// <summary>A client is there: what was dropped so far is said first.</summary>
    internal void Begin()
    {
        _marker = _dropped == 0 ? [] : Encoding.ASCII.GetBytes($"[vmm: {_dropped} bytes of earlier output are lost]\r\n");
        _markerAt = 0;
        _dropped = 0;
    }

    internal ReadOnlySpan<byte> Peek() =>
        _markerAt < _marker.Length ? _marker.AsSpan(_markerAt)
        : _buffer is null ? default
        : _buffer.AsSpan(_start, Math.Min(_count, capacity - _start));

    internal void Advance(int count)
    {
        if (_markerAt < _marker.Length)
        {
            _markerAt += count;
            return;
        }

        _start = (_start + count) % capacity;
        _count -= count;
        if (_count == 0)
        {
            // Usually nobody needs a second one.
            _buffer = null;
            _start = 0;
        }
    }
}
