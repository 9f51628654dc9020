namespace Vmm.Machine.Console;

/// <summary>
/// What stands between the vCPU that writes a byte and the thread that hands it on: any number of producers, one consumer, in order,
/// nothing lost. A producer waits only while the ring is full, or is told when it is not any more. Appending allocates nothing.
/// </summary>
internal sealed class OutputRing(WakeEvent wake, int capacity = OutputRing.DefaultCapacity)
{
    /// <summary>256 KiB: a kernel's whole boot log, so that no boot waits for its terminal.</summary>
    internal const int DefaultCapacity = 256 * 1024;

    private readonly object _gate = new();
    private readonly byte[] _buffer = new byte[capacity];
    private readonly LastLines _lastLines = new();
    private int _start;
    private int _count;
    private int _waiting;
    private bool _consumerSleeps;
    private bool _completed;
    private bool _letGo;

    // Somebody had more than fitted, and is waiting to be told.
    private bool _starved;
    private bool _discard;

    /// <summary>
    /// Called when half of it is free, after <see cref="TryAppend"/> took less than it was given; without a lock. Set before bytes flow.
    /// </summary>
    internal Action? RoomAvailable { get; set; }

    /// <summary>No more comes, or nobody takes it any more.</summary>
    internal bool Completed
    {
        get
        {
            lock (_gate)
                return _completed || _discard;
        }
    }

    /// <summary>The last lines that went through, also those that nobody took.</summary>
    internal string LastLines
    {
        get
        {
            lock (_gate)
                return _lastLines.ToString();
        }
    }

    /// <summary>A producer waits, or would.</summary>
    internal bool IsFull
    {
        get
        {
            lock (_gate)
                return _count == _buffer.Length;
        }
    }

    internal void Append(ReadOnlySpan<byte> data)
    {
        lock (_gate)
        {
            _lastLines.Append(data);
            while (!data.IsEmpty)
            {
                while (_count == _buffer.Length && !_discard && !_letGo)
                {
                    _waiting++;
                    Monitor.Wait(_gate);
                    _waiting--;
                }

                if (_discard || _count == _buffer.Length)
                    return;

                data = data[Put(data)..];
            }
        }
    }

    /// <summary>Takes what there is room for, without waiting; everything when nobody takes it any more.</summary>
    internal int TryAppend(ReadOnlySpan<byte> data)
    {
        lock (_gate)
        {
            int taken = _discard ? data.Length : 0;
            while (taken < data.Length && _count < _buffer.Length)
                taken += Put(data[taken..]);
            if (_letGo)
                taken = data.Length;
            _starved |= taken < data.Length;
            _lastLines.Append(data[..taken]);
            return taken;
        }
    }

    /// <summary>
    /// The oldest bytes that lie together; they stay as they are until <see cref="Advance"/>. When it is empty, the next byte sets
    /// the wake event.
    /// </summary>
    internal ReadOnlySpan<byte> Peek()
    {
        lock (_gate)
        {
            int together = _discard ? 0 : Math.Min(_count, _buffer.Length - _start);
            _consumerSleeps = together == 0;
            return _buffer.AsSpan(_start, together);
        }
    }

    /// <summary>Forgets that many of the oldest bytes.</summary>
    internal void Advance(int count)
    {
        lock (_gate)
        {
            _count -= count;

            // Starting over at the front when it is empty keeps a quiet console to a page or two of memory.
            _start = _count == 0 ? 0 : (_start + count) % _buffer.Length;
            if (_waiting != 0)
                Monitor.PulseAll(_gate);
            if (!_starved || _count > _buffer.Length / 2)
                return;
            _starved = false;
        }
        RoomAvailable?.Invoke();
    }

    /// <summary>Says that no more comes; what is there is still to be taken.</summary>
    internal void Complete()
    {
        lock (_gate)
            _completed = true;
        wake.Set();
    }

    /// <summary>Lets waiting producers go, now and from now on: what finds no room is lost; what is there is still to be taken.</summary>
    internal void LetGo()
    {
        lock (_gate)
        {
            _letGo = true;
            _starved = false;
            Monitor.PulseAll(_gate);
        }
        RoomAvailable?.Invoke();
    }

    /// <summary>Throws away what is there and what comes, and lets waiting producers go.</summary>
    internal void Discard()
    {
        lock (_gate)
        {
            _discard = true;
            _starved = false;
            Monitor.PulseAll(_gate);
        }
        RoomAvailable?.Invoke();
    }

    /// <summary>Copies what fits in one piece, and wakes the consumer. With the lock held, and room.</summary>
    private int Put(ReadOnlySpan<byte> data)
    {
        int end = _start + _count;
        if (end >= _buffer.Length)
            end -= _buffer.Length;
        int taken = Math.Min(Math.Min(_buffer.Length - _count, _buffer.Length - end), data.Length);
        data[..taken].CopyTo(_buffer.AsSpan(end));
        _count += taken;
        if (_consumerSleeps)
        {
            _consumerSleeps = false;
            wake.Set();
        }
        return taken;
    }
}
