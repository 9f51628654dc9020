namespace Vmm.Virtio.Devices.Console;

/// <summary>
/// Input between the thread that reads it and the loop that gives it to the guest: a bounded ring that tells when there is room again.
/// </summary>
internal sealed class ConsoleInput(int capacity)
{
    private readonly Lock _lock = new();
    private readonly byte[] _buffer = new byte[capacity];
    private int _start;
    private int _count;

    // Someone had more than fitted, and is waiting to be told.
    private bool _starved;

    internal bool IsEmpty => Volatile.Read(ref _count) == 0;

    /// <summary>Takes what fits.</summary>
    internal int Add(ReadOnlySpan<byte> data)
    {
        lock (_lock)
        {
            int taken = Math.Min(data.Length, _buffer.Length - _count);
            int end = (_start + _count) % _buffer.Length;
            int first = Math.Min(taken, _buffer.Length - end);
            data[..first].CopyTo(_buffer.AsSpan(end));
            data[first..taken].CopyTo(_buffer);
            Volatile.Write(ref _count, _count + taken);
            _starved |= taken < data.Length;
            return taken;
        }
    }

    /// <summary>The oldest bytes that lie together; they stay until <see cref="Advance"/>. For one reader.</summary>
    internal ReadOnlySpan<byte> Peek()
    {
        lock (_lock)
            return _buffer.AsSpan(_start, Math.Min(_count, _buffer.Length - _start));
    }

    /// <summary>Forgets that many; true when somebody waits for the room, which is told once.</summary>
    internal bool Advance(int count)
    {
        lock (_lock)
        {
            Volatile.Write(ref _count, _count - count);
            _start = _count == 0 ? 0 : (_start + count) % _buffer.Length;
            bool tell = _starved;
            _starved = false;
            return tell;
        }
    }

    internal byte[] ToArray()
    {
        lock (_lock)
        {
            byte[] all = new byte[_count];
            for (int i = 0; i < all.Length; i++)
                all[i] = _buffer[(_start + i) % _buffer.Length];
            return all;
        }
    }

    /// <summary>Becomes these bytes, which fit.</summary>
    internal void Set(ReadOnlySpan<byte> data)
    {
        lock (_lock)
        {
            data.CopyTo(_buffer);
            _start = 0;
            Volatile.Write(ref _count, data.Length);
        }
    }
}
