using Vmm.Core;
using Vmm.Core.Interop;

namespace Vmm.Machine.Console;

/// <summary>
/// A console whose clients come and go. One thread serves both directions with poll(2). While nobody is connected the newest MiB of
/// output is kept for the next client; while somebody is, nothing is dropped, and a client that does not read makes the guest wait, for
/// 10 seconds: after that it is as if nobody were connected, until it reads again.
/// </summary>
internal sealed unsafe class ConnectionConsole : GuestConsole
{
    /// <summary>How long a guest waits for a client that takes nothing. A slow reader takes something all the time; a stopped one holds up a vCPU.</summary>
    private const int DefaultPatienceMilliseconds = 10_000;

    private const int LookEveryMilliseconds = 500;

    private readonly ConnectionEnd _end;
    private readonly bool _wantsInput;
    private readonly int _patience;
    private readonly WakeEvent _wake = new();
    private readonly OutputRing _ring;
    private readonly InputQueue _input;
    private readonly Backlog _backlog = new();
    private Thread? _thread;
    private volatile bool _stopping;
    private int _client = -1;
    private bool _inputEnded;
    private bool _outputEnded;

    // The client takes nothing, and the guest has waited for it for long enough.
    private bool _stalled;
    private long _lastTaken;

    internal ConnectionConsole(ConnectionEnd end, bool input, int patienceMilliseconds = DefaultPatienceMilliseconds)
    {
        _end = end;
        _wantsInput = input;
        _patience = patienceMilliseconds;
        _ring = new OutputRing(_wake);
        _input = new InputQueue(_wake);
    }

    public override string? Location => _end.Location;

    public override string LastLines => _ring.LastLines;

    public override Action? RoomAvailable
    {
        get => _ring.RoomAvailable;
        set => _ring.RoomAvailable = value;
    }

    public override void Start(ConsoleReceiver? receive)
    {
        _input.Connect(_wantsInput ? receive : null);
        _thread = new Thread(Loop, StackBytes) { IsBackground = true, Name = "console" };
        _thread.Start();
    }

    public override void SpaceAvailable() => _input.SpaceAvailable();

    public override void LetGo() => _ring.LetGo();

    public override void Write(ReadOnlySpan<byte> data) => _ring.Append(data);

    public override int TryWrite(ReadOnlySpan<byte> data) => _ring.TryAppend(data);

    protected override void Dispose(bool disposing)
    {
        if (_stopping)
            return;
        _stopping = true;
        _ring.Complete();
        _thread?.Join();
        _ring.Discard();
        _end.Dispose();
        _wake.Dispose();
    }

    private void Loop()
    {
        ThreadName.Publish();
        long stopAt = long.MaxValue;
        pollfd* fds = stackalloc pollfd[2];
        while (true)
        {
            bool writes = _client >= 0 && !_outputEnded;
            if (!writes || _stalled)
                KeepForLater();
            ReadOnlySpan<byte> pending = Pending();
            if (pending.IsEmpty)
                _lastTaken = Environment.TickCount64;
            if (_stopping)
            {
                stopAt = Math.Min(stopAt, Environment.TickCount64 + FlushMilliseconds);
                if (!writes || pending.IsEmpty || Environment.TickCount64 >= stopAt)
                    return;
            }

            bool room = _input.HasRoom;
            bool reads = room && !_inputEnded;
            writes &= !pending.IsEmpty;
            fds[0] = new pollfd { fd = _wake.Number, events = LibC.POLLIN };
            fds[1] = _client < 0 ? new pollfd { fd = _end.WaitFd, events = LibC.POLLIN }
                : new pollfd { fd = reads || writes || _inputEnded ? _client : -1, events = Events(reads, writes) };
            int timeout = _stopping ? (int)Math.Max(1, stopAt - Environment.TickCount64)
                : _client < 0 ? _end.LookEvery : writes && !_stalled ? LookEveryMilliseconds : -1;
            if (LibC.poll(fds, 2, timeout) < 0 && LibC.errno != LibC.EINTR)
                return;

            if ((fds[0].revents & LibC.POLLIN) != 0)
            {
                _wake.Clear();
                _input.Deliver();
            }

            if (_client < 0)
                Connect();
            else
                Serve(fds[1].revents, reads);
            if (_client >= 0 && _ring.IsFull && Environment.TickCount64 - _lastTaken >= _patience)
                _stalled = true;
        }
    }

    private static short Events(bool reads, bool writes) => (short)((reads ? LibC.POLLIN : 0) | (writes ? LibC.POLLOUT : 0));

    private void KeepForLater()
    {
        ReadOnlySpan<byte> data;
        while (!(data = _ring.Peek()).IsEmpty)
        {
            _backlog.Append(data);
            _ring.Advance(data.Length);
        }
    }

    private ReadOnlySpan<byte> Pending() => _backlog.IsEmpty ? _ring.Peek() : _backlog.Peek();

    private void Connect()
    {
        _client = _end.TryConnect();
        if (_client < 0)
            return;
        _inputEnded = false;
        _outputEnded = false;
        _stalled = false;
        _lastTaken = Environment.TickCount64;
        _backlog.Begin();
    }

    private void Serve(short happened, bool reads)
    {
        if ((happened & LibC.POLLOUT) != 0 && !SendOnce())
        {
            // What it sent before it left is still the guest's.
            _outputEnded = true;
            if (_inputEnded)
            {
                Disconnect();
                return;
            }
        }

        bool hangUp = (happened & (LibC.POLLHUP | LibC.POLLERR)) != 0;
        if (reads && ((happened & LibC.POLLIN) != 0 || hangUp))
        {
            if (!ReadOnce(hangUp))
                Disconnect();
        }
        else if (hangUp && _inputEnded)
        {
            Disconnect();
        }
    }

    /// <summary>Sends what the client takes now; false when it is gone.</summary>
    private bool SendOnce()
    {
        if (_stalled)
        {
            // It reads again, and is told what it has missed.
            _stalled = false;
            _backlog.Begin();
        }

        bool early = !_backlog.IsEmpty;
        ReadOnlySpan<byte> data = Pending();
        nint sent = _end.Send(_client, data);
        if (sent < 0)
            return LibC.errno is LibC.EAGAIN or LibC.EINTR;
        _lastTaken = Environment.TickCount64;
        if (early)
            _backlog.Advance((int)sent);
        else
            _ring.Advance((int)sent);
        return true;
    }

    /// <summary>Reads what is there; false when the client is gone.</summary>
    private bool ReadOnce(bool hangUp)
    {
        Span<byte> room = _input.Room;
        nint read;
        fixed (byte* bytes = room)
            read = LibC.read(_client, bytes, (nuint)room.Length);
        if (read > 0)
        {
            _input.Added((int)read);
            _input.Deliver();
            return true;
        }

        if (read < 0 && LibC.errno is LibC.EAGAIN or LibC.EINTR)
            return !hangUp;

        // A client may close only its sending side, and wait for the answer to what it sent.
        _inputEnded = true;
        return read == 0 && !hangUp;
    }

    private void Disconnect()
    {
        _client = -1;
        _end.Disconnect();
    }
}
