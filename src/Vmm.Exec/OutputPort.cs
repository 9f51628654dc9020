using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Virtio.Devices.Console;

namespace Vmm.Exec;

/// <summary>
/// What the command writes to one of its outputs, on its way to a descriptor of this process: as it comes, and all of it. Where nobody reads
/// it any more the port is hung up, so that the command finds its output closed, as in a pipeline.
/// </summary>
internal sealed unsafe class OutputPort : ConsolePortEnd
{
    private const int Capacity = 256 << 10;
    private const int LargestWrite = 64 << 10;

    private readonly int _fd;
    private readonly object _gate = new();
    private readonly byte[] _buffer = new byte[Capacity];
    private readonly Thread _writer;
    private int _start;
    private int _count;
    private bool _starved;
    private bool _complete;
    private bool _broken;

    /// <summary>Makes one, and starts its thread.</summary>
    /// <param name="name">The port's name.</param>
    /// <param name="fd">Where it goes; not closed. -1 for nowhere.</param>
    internal OutputPort(string name, int fd)
        : base(name)
    {
        _fd = fd;
        _broken = fd < 0;
        _writer = new Thread(Run, 128 * 1024) { IsBackground = true, Name = name };
        _writer.Start();
    }

    /// <inheritdoc/>
    public override int TryWrite(ReadOnlySpan<byte> data)
    {
        lock (_gate)
        {
            if (_broken)
                return data.Length;
            int taken = Math.Min(data.Length, Capacity - _count);
            int end = (_start + _count) % Capacity;
            int first = Math.Min(taken, Capacity - end);
            data[..first].CopyTo(_buffer.AsSpan(end));
            data[first..taken].CopyTo(_buffer);
            _count += taken;
            _starved |= taken < data.Length;
            if (taken > 0)
                Monitor.PulseAll(_gate);
            return taken;
        }
    }

    /// <summary>Waits until all of it is written, or cannot be.</summary>
    /// <param name="cancel">Ends the wait.</param>
    internal void Finish(CancellationToken cancel)
    {
        lock (_gate)
        {
            _complete = true;
            Monitor.PulseAll(_gate);
        }
        // The thread may be in write(2) to somebody who has stopped reading.
        while (!_writer.Join(50) && !cancel.IsCancellationRequested)
        {
        }
    }

    private void Run()
    {
        ThreadName.Publish();
        while (true)
        {
            int start, length;
            lock (_gate)
            {
                while (_count == 0 && !_complete)
                    Monitor.Wait(_gate);
                if (_count == 0)
                    return;
                start = _start;
                length = Math.Min(Math.Min(_count, Capacity - start), LargestWrite);
            }
            int written = WriteOnce(start, length);
            bool tell;
            lock (_gate)
            {
                if (written < 0)
                {
                    _broken = true;
                    written = _count;
                }
                _count -= written;
                _start = (_start + written) % Capacity;
                tell = _starved && (_broken || _count <= Capacity / 2);
                _starved &= !tell;
            }
            if (tell)
                RoomAvailable?.Invoke();
            if (_broken)
            {
                HangUp();
                return;
            }
        }
    }

    /// <summary>Writes some of it; less than 0 where nobody takes it.</summary>
    private int WriteOnce(int start, int length)
    {
        // Safe: the range lies in the buffer, which is pinned for the call; its bytes are nobody else's until they are counted as written.
        fixed (byte* bytes = &_buffer[start])
        {
            while (true)
            {
                nint written = LibC.write(_fd, bytes, (nuint)length);
                if (written >= 0)
                    return (int)written;
                int error = LibC.errno;
                if (error == LibC.EAGAIN)
                {
                    // Somebody else made the descriptor non-blocking; they share it with us.
                    var wait = new pollfd { fd = _fd, events = LibC.POLLOUT };
                    _ = LibC.poll(&wait, 1, -1);
                }
                else if (error != LibC.EINTR)
                {
                    return -1;
                }
            }
        }
    }
}
