namespace Vmm.Machine.Console;

/// <summary>
/// What stands between the vCPU that writes a byte and the thread that hands it on: any number of producers, one consumer, in order,
/// nothing lost. A producer waits only while the ring is full. Appending allocates nothing.
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
    private bool _discard;

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

                int end = _start + _count;
                if (end >= _buffer.Length)
                    end -= _buffer.Length;
                int room = Math.Min(_buffer.Length - _count, _buffer.Length - end);
                int taken = Math.Min(room, data.Length);
                data[..taken].CopyTo(_buffer.AsSpan(end));
                _count += taken;
                data = data[taken..];
                if (_consumerSleeps)
                {
                    _consumerSleeps = false;
                    wake.Set();
                }
            }
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
        }
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
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Throws away what is there and what comes, and lets waiting producers go.</summary>
    internal void Discard()
    {
        lock (_gate)
        {
            _discard = true;
            Monitor.PulseAll(_gate);
        }
    }
}
