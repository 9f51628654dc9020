namespace Vmm.Machine.Console;

/// <summary>
/// Input on its way to the guest: what the device had no room for waits here, and <see cref="SpaceAvailable"/> gets the console's
/// thread to try again. Bounded; while there is no room the console stops reading, so that the sender waits and nothing is lost.
/// </summary>
internal sealed class InputQueue(WakeEvent wake)
{
    /// <summary>More than anybody types while a guest hangs, so that the Ctrl-A keys still come through.</summary>
    internal const int Capacity = 64 * 1024;

    private readonly byte[] _buffer = new byte[Capacity];
    private ConsoleReceiver? _receive;
    private int _start;
    private int _end;
    private int _starved;

    /// <summary>Where to read to; empty while the guest does not take what is there.</summary>
    internal Span<byte> Room => _buffer.AsSpan(_end);

    internal bool HasRoom => _end < Capacity;

    internal bool IsEmpty => _start == _end;

    internal void Connect(ConsoleReceiver? receive) => _receive = receive;

    /// <summary>Says that so many bytes were put at the start of <see cref="Room"/>.</summary>
    internal void Added(int count) => _end += count;

    /// <summary>Hands on as much as the device takes. Only the console's thread calls it.</summary>
    internal void Deliver()
    {
        if (_receive is not { } receive)
        {
            _start = _end = 0;
            return;
        }

        while (_start < _end)
        {
            int taken = receive(_buffer.AsSpan(_start, _end - _start));
            if (taken == 0 && _starved == 0)
            {
                // Once more after saying so: there may have been room in between, which nobody told us then.
                Interlocked.Exchange(ref _starved, 1);
                continue;
            }

            if (taken == 0)
                break;
            _start += taken;
        }

        if (_start == _end)
        {
            _start = _end = 0;
        }
        else if (_start > Capacity / 2)
        {
            _buffer.AsSpan(_start, _end - _start).CopyTo(_buffer);
            (_start, _end) = (0, _end - _start);
        }
    }

    /// <summary>The device has room again. Called on vCPU threads with the device locked: cheap, and never calls back.</summary>
    internal void SpaceAvailable()
    {
        if (Volatile.Read(ref _starved) != 0 && Interlocked.Exchange(ref _starved, 0) != 0)
            wake.Set();
    }
}
