using System.Text;
using Vmm.Core;
using Vmm.Core.Interop;

namespace Vmm.Machine.Console;

/// <summary>
/// A console on plain descriptors: standard input and output, or a file. One thread writes and, where there is input, one reads: a
/// terminal that takes no output (because somebody stopped it) must not keep Ctrl-A x from being read.
/// </summary>
internal sealed unsafe class StreamConsole : GuestConsole
{
    /// <summary>A pipe that poll(2) calls writable takes this much (PIPE_BUF) without waiting.</summary>
    private const int PipeChunk = 4096;

    private readonly string _name;
    private readonly ConsoleEvents _events;
    private readonly int _outputFd;
    private readonly FileDescriptor? _ownedOutput;
    private readonly int _inputFd;
    private readonly bool _terminalInput;
    private readonly TerminalMode? _mode;
    private readonly WakeEvent _outputWake = new();
    private readonly WakeEvent _inputWake = new();
    private readonly OutputRing _ring;
    private readonly InputQueue _input;
    private readonly EscapeKeys _keys;
    private bool _made;
    private Thread? _writer;
    private Thread? _reader;
    private volatile bool _stopping;
    private int _failed;

    private StreamConsole(string name, ConsoleEvents events, int outputFd, FileDescriptor? ownedOutput, int inputFd)
    {
        _name = name;
        _events = events;
        _outputFd = outputFd;
        _ownedOutput = ownedOutput;
        _inputFd = inputFd;
        _ring = new OutputRing(_outputWake);
        _input = new InputQueue(_inputWake);
        _keys = new EscapeKeys(events.Command, text => _ring.Append(Encoding.UTF8.GetBytes(text)));
        if (inputFd >= 0 && LibC.isatty(inputFd) == 1)
        {
            _terminalInput = true;
            _mode = TerminalMode.EnterRaw(inputFd);
        }
    }

    public override string LastLines => _ring.LastLines;

    public override Action? RoomAvailable
    {
        get => _ring.RoomAvailable;
        set => _ring.RoomAvailable = value;
    }

    internal static StreamConsole OnStandardStreams(ConsoleEvents events, bool input)
    {
        if (StandardStreams.IsMissing(1))
            throw VmmException.Host("The console cannot be on standard output: that is closed; open it, or name another place with --serial file=PATH or --serial null.");
        return OnDescriptors(events, input && !StandardStreams.IsMissing(0) ? 0 : -1, 1);
    }

    internal static StreamConsole OnDescriptors(ConsoleEvents events, int inputFd, int outputFd) =>
        new("standard output", events, outputFd, null, inputFd);

    internal static StreamConsole ToFile(string path, ConsoleEvents events)
    {
        const int flags = LibC.O_WRONLY | LibC.O_CLOEXEC | LibC.O_NOCTTY;
        const uint mode = 0x180; // 0600: a console shows secrets

        // It is emptied by Start: a machine that cannot be made must not cost the log of an earlier one, nor leave an empty one.
        int fd = LibC.open(path, flags | LibC.O_CREAT | LibC.O_EXCL, mode);
        bool made = fd >= 0;
        if (!made && LibC.errno == LibC.EEXIST)
            fd = LibC.open(path, flags, mode);
        if (fd < 0)
            throw VmmException.Configuration($"Cannot write the console to {path}: {LibC.strerror(LibC.errno)}; name a file that can be made.");
        return new StreamConsole(path, events, fd, new FileDescriptor(fd), -1) { _made = made };
    }

    public override void Start(ConsoleReceiver? receive)
    {
        // Devices and pipes refuse, and have nothing to empty.
        if (_ownedOutput is not null)
            _ = LibC.ftruncate(_outputFd, 0);
        _writer = new Thread(WriteLoop, StackBytes) { IsBackground = true, Name = "console-out" };
        _writer.Start();
        if (_inputFd < 0)
            return;
        _input.Connect(receive);
        _reader = new Thread(ReadLoop, StackBytes) { IsBackground = true, Name = "console-in" };
        _reader.Start();
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
        _inputWake.Set();
        _ring.Complete();

        // Whoever is still blocked after that (a terminal stopped for good) is left to the end of the process; then nothing that the
        // thread uses may be closed.
        bool ended = _writer is null || _writer.Join(FlushMilliseconds);
        _ring.Discard();
        ended &= _reader is null || _reader.Join(FlushMilliseconds);
        _mode?.Dispose();
        if (!ended)
            return;
        _ownedOutput?.Dispose();
        if (_made && _writer is null)
            _ = LibC.unlink(_name);
        _outputWake.Dispose();
        _inputWake.Dispose();
    }

    private void WriteLoop()
    {
        ThreadName.Publish();
        while (true)
        {
            ReadOnlySpan<byte> data = _ring.Peek();
            if (data.IsEmpty)
            {
                if (_ring.Completed && _ring.Peek().IsEmpty)
                    return;
                Wait(_outputWake.Number, LibC.POLLIN);
                _outputWake.Clear();
                continue;
            }

            int length = _ownedOutput is null ? Math.Min(data.Length, PipeChunk) : data.Length;
            nint written;

            // The ring's buffer is pinned for the call, and its bytes stay until they are forgotten below.
            fixed (byte* bytes = data)
                written = LibC.write(_outputFd, bytes, (nuint)length);
            if (written >= 0)
            {
                _ring.Advance((int)written);
                continue;
            }

            int error = LibC.errno;
            if (error == LibC.EAGAIN)
            {
                // Somebody else made the descriptor non-blocking; they share it with us.
                Wait(_outputFd, LibC.POLLOUT);
            }
            else if (error != LibC.EINTR)
            {
                Fail($"The guest's console output cannot be written to {_name}", error);
                return;
            }
        }
    }

    private void ReadLoop()
    {
        ThreadName.Publish();
        Span<byte> typed = stackalloc byte[4096];
        pollfd* fds = stackalloc pollfd[2];
        while (!_stopping)
        {
            // One byte of room is kept for a Ctrl-A that turns out to be the guest's.
            bool room = _input.Room.Length > 1;
            fds[0] = new pollfd { fd = _inputWake.Number, events = LibC.POLLIN };
            fds[1] = new pollfd { fd = room ? _inputFd : -1, events = LibC.POLLIN };
            if (LibC.poll(fds, 2, -1) < 0 && LibC.errno != LibC.EINTR)
                return;
            if ((fds[0].revents & LibC.POLLIN) != 0)
            {
                _inputWake.Clear();
                _input.Deliver();
            }

            if (room && fds[1].revents != 0 && !_stopping && !ReadOnce(typed))
            {
                DeliverTheRest();
                return;
            }
        }
    }

    /// <summary>Reads what is there; false at the end of the input.</summary>
    private bool ReadOnce(Span<byte> typed)
    {
        Span<byte> room = _input.Room;
        int length = Math.Min(typed.Length, room.Length - 1);
        nint read;
        fixed (byte* bytes = typed)
            read = LibC.read(_inputFd, bytes, (nuint)length);
        int error = read < 0 ? LibC.errno : 0;
        if (error is LibC.EINTR or LibC.EAGAIN)
            return true;
        if (read <= 0)
        {
            // A pipe or a file just ends, and a closed standard input was never there. A terminal in raw mode has no end: it is gone.
            if (_terminalInput)
                Fail("The terminal of the serial console is gone", error == 0 ? LibC.EIO : error);
            return false;
        }

        ReadOnlySpan<byte> data = typed[..(int)read];
        if (_terminalInput)
        {
            _input.Added(_keys.Filter(data, room));
        }
        else
        {
            data.CopyTo(room);
            _input.Added(data.Length);
        }

        _input.Deliver();
        return true;
    }

    /// <summary>After the end of the input: the guest still gets what was read.</summary>
    private void DeliverTheRest()
    {
        while (!_stopping && !_input.IsEmpty)
        {
            Wait(_inputWake.Number, LibC.POLLIN);
            _inputWake.Clear();
            _input.Deliver();
        }
    }

    private void Fail(string what, int error)
    {
        _ring.Discard();
        if (Interlocked.Exchange(ref _failed, 1) == 0 && !_stopping)
            _events.Failed(Error(what, error, "the machine was ended, since nobody would see what it writes."));
    }

    private static void Wait(int fd, short events)
    {
        var wait = new pollfd { fd = fd, events = events };
        _ = LibC.poll(&wait, 1, -1);
    }
}
