using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Machine.Console;
using Vmm.Virtio.Devices.Console;

namespace Vmm.Exec;

/// <summary>
/// A descriptor of this process as the command's input: read once the guest has opened its end, no further ahead than the device has room for,
/// and to its end, which the command finds too.
/// </summary>
internal sealed unsafe class InputPort : ConsolePortEnd, IDisposable
{
    private const int Chunk = 16 << 10;
    private const int Grace = 1000;

    private readonly int _fd;
    private readonly WakeEvent _wake = new();
    private readonly Thread _reader;
    private int _started;
    private volatile bool _over;

    /// <summary>Makes one.</summary>
    /// <param name="name">The port's name.</param>
    /// <param name="fd">What is read; not closed. -1 for an input that has ended.</param>
    internal InputPort(string name, int fd)
        : base(name)
    {
        _fd = fd;
        _reader = new Thread(Run, 128 * 1024) { IsBackground = true, Name = name };
        if (fd < 0)
            HangUp();
    }

    /// <inheritdoc/>
    public override int TryWrite(ReadOnlySpan<byte> data) => data.Length;

    /// <inheritdoc/>
    public void Dispose()
    {
        _over = true;
        _wake.Set();
        if (Interlocked.Exchange(ref _started, 1) == 0 || _reader.Join(Grace))
            _wake.Dispose();
    }

    /// <inheritdoc/>
    protected override void OnOpened() => Opened();

    /// <summary>The guest reads it: so do we.</summary>
    internal void Opened()
    {
        if (_fd >= 0 && Interlocked.Exchange(ref _started, 1) == 0)
            _reader.Start();
    }

    /// <inheritdoc/>
    protected override void OnInputRoom()
    {
        if (Volatile.Read(ref _started) != 0 && !_over)
            _wake.Set();
    }

    private void Run()
    {
        ThreadName.Publish();
        byte[] buffer = new byte[Chunk];
        int length;
        while ((length = Read(buffer)) > 0)
        {
            for (int done = 0; done < length;)
            {
                int taken = Receive(buffer.AsSpan(done, length - done));
                done += taken;
                // What was not taken is taken when the device says so.
                if (done < length && !Wait(-1))
                    return;
            }
        }
        if (!_over)
            HangUp();
    }

    /// <summary>Reads what is there; 0 at its end, and where it cannot be read.</summary>
    private int Read(byte[] buffer)
    {
        while (Wait(_fd))
        {
            nint read;
            // Safe: the buffer is pinned for the call.
            fixed (byte* bytes = buffer)
                read = LibC.read(_fd, bytes, (nuint)buffer.Length);
            if (read >= 0)
                return (int)read;
            if (LibC.errno is not (LibC.EINTR or LibC.EAGAIN))
                return 0;
        }
        return 0;
    }

    /// <summary>Waits for the descriptor, or for the device where that is -1; false when it is over.</summary>
    private bool Wait(int fd)
    {
        pollfd* fds = stackalloc pollfd[2];
        while (!_over)
        {
            fds[0] = new pollfd { fd = _wake.Number, events = LibC.POLLIN };
            fds[1] = new pollfd { fd = fd, events = LibC.POLLIN };
            if (LibC.poll(fds, 2, -1) < 0)
                continue;
            bool woken = fds[0].revents != 0;
            if (woken)
                _wake.Clear();
            if (fd < 0 ? woken : fds[1].revents != 0)
                return !_over;
        }
        return false;
    }
}
