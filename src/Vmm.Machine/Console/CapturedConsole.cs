using System.Text;
using Vmm.Core;

namespace Vmm.Machine.Console;

/// <summary>
/// A console whose other end is this program: what the guest writes goes to a listener as text, on a thread of its own, and what the program types goes
/// to the guest. A vCPU that writes waits only while 256 KiB are on their way.
/// </summary>
internal sealed class CapturedConsole : GuestConsole
{
    private const int Capacity = 256 * 1024;

    private readonly IConsoleListener _listener;
    private readonly Func<TimeSpan> _now;
    private readonly Thread _thread;
    private readonly ConsoleText _text = new();
    private readonly LastLines _lastLines = new();

    // Guards all of the below; a leaf. Output is what has come, and the half that the thread works on.
    private readonly object _gate = new();
    private readonly Queue<byte[]> _typed = new();
    private byte[] _output = new byte[4096];
    private byte[] _spare = new byte[4096];
    private int _count;
    private int _typedOffset;
    private ConsoleReceiver? _receive;
    private bool _room = true;
    private bool _starved;
    private bool _letGo;
    private bool _ending;
    private bool _started;
    private bool _working;

    /// <summary>Makes it; nothing flows before <see cref="Start"/>.</summary>
    /// <param name="listener">Hears the guest.</param>
    /// <param name="now">The time since the machine was made.</param>
    internal CapturedConsole(IConsoleListener listener, Func<TimeSpan> now)
    {
        _listener = listener;
        _now = now;
        _thread = new Thread(Work, StackBytes) { IsBackground = true, Name = "console" };
    }

    public override string LastLines
    {
        get
        {
            lock (_gate)
                return _lastLines.ToString();
        }
    }

    public override Action? RoomAvailable { get; set; }

    /// <summary>Types something; it goes to the guest as fast as its device takes it.</summary>
    internal void Type(byte[] bytes)
    {
        if (bytes.Length == 0)
            return;
        lock (_gate)
        {
            _typed.Enqueue(bytes);
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Waits until the listener has heard everything that was written so far, or the console has ended. Not on the listener's thread.</summary>
    internal void Drain()
    {
        lock (_gate)
        {
            while (_started && !_ending && (_count > 0 || _working))
                Monitor.Wait(_gate);
        }
    }

    public override void Start(ConsoleReceiver? receive)
    {
        lock (_gate)
        {
            _receive = receive;
            _started = true;
        }
        _thread.Start();
    }

    public override void SpaceAvailable()
    {
        lock (_gate)
        {
            _room = true;
            Monitor.PulseAll(_gate);
        }
    }

    public override void LetGo()
    {
        lock (_gate)
        {
            _letGo = true;
            Monitor.PulseAll(_gate);
        }
    }

    public override void Write(ReadOnlySpan<byte> data)
    {
        lock (_gate)
        {
            while (!data.IsEmpty)
            {
                int taken = Put(data);
                data = data[taken..];
                if (data.IsEmpty)
                    return;
                if (_letGo || _ending)
                    return;
                Monitor.Wait(_gate);
            }
        }
    }

    public override int TryWrite(ReadOnlySpan<byte> data)
    {
        lock (_gate)
        {
            int taken = Put(data);
            if (_letGo || _ending)
                return data.Length;
            _starved |= taken < data.Length;
            return taken;
        }
    }

    protected override void Dispose(bool disposing)
    {
        lock (_gate)
        {
            if (_ending)
                return;
            _ending = true;
            Monitor.PulseAll(_gate);
        }
        // The listener hears the rest first. It may be the one that ends the machine.
        if (_started && Thread.CurrentThread != _thread)
            _thread.Join();
    }

    // With the lock held.
    private int Put(ReadOnlySpan<byte> data)
    {
        int taken = Math.Min(data.Length, Capacity - _count);
        if (taken == 0)
            return 0;
        if (_count + taken > _output.Length)
            Array.Resize(ref _output, Math.Min(Capacity, Math.Max(_output.Length * 2, _count + taken)));
        data[..taken].CopyTo(_output.AsSpan(_count));
        _count += taken;
        _lastLines.Append(data[..taken]);
        if (!_working)
            Monitor.PulseAll(_gate);
        return taken;
    }

    private void Work()
    {
        ThreadName.Publish();
        while (true)
        {
            int length;
            byte[]? input;
            bool roomAgain = false;
            bool ending;
            lock (_gate)
            {
                _working = false;
                if (_count == 0)
                    Monitor.PulseAll(_gate);
                while (_count == 0 && !_ending && (_typed.Count == 0 || !_room))
                    Monitor.Wait(_gate);
                _working = true;
                ending = _ending;
                length = _count;
                (_output, _spare) = (_spare, _output);
                _count = 0;
                if (length > 0)
                {
                    roomAgain = _starved;
                    _starved = false;
                    Monitor.PulseAll(_gate);
                }
                input = !ending && _room && _typed.TryPeek(out byte[]? first) ? first : null;
            }
            if (roomAgain)
                RoomAvailable?.Invoke();
            if (length > 0)
                _text.Append(_spare.AsSpan(0, length), _now(), _listener);
            if (input != null)
                Deliver(input);
            if (ending && length == 0)
                break;
        }
        _text.End(_now(), _listener);
    }

    private void Deliver(byte[] input)
    {
        // Before asking: room that comes while the device is asked is not forgotten then.
        lock (_gate)
            _room = false;
        int taken = _receive?.Invoke(input.AsSpan(_typedOffset)) ?? input.Length - _typedOffset;
        lock (_gate)
        {
            _typedOffset += taken;
            _room |= taken > 0;
            if (_typedOffset < input.Length)
                return;
            _typed.Dequeue();
            _typedOffset = 0;
        }
    }
}
