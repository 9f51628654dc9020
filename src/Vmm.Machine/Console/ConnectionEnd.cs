using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Core.Sockets;

namespace Vmm.Machine.Console;

/// <summary>Something that a client connects to and leaves again: a pseudo-terminal or a socket.</summary>
internal abstract class ConnectionEnd : IDisposable
{
    internal abstract string Location { get; }

    /// <summary>What poll(2) watches for a client while there is none; below zero when only looking helps.</summary>
    internal abstract int WaitFd { get; }

    /// <summary>How often to look for a client, in milliseconds; -1 for never.</summary>
    internal abstract int LookEvery { get; }

    /// <summary>The client's non-blocking descriptor, or -1 while there is none.</summary>
    internal abstract int TryConnect();

    /// <summary>The client is gone.</summary>
    internal abstract void Disconnect();

    internal abstract nint Send(int fd, ReadOnlySpan<byte> data);

    public abstract void Dispose();
}

/// <summary>A new pseudo-terminal. Whoever opens its slave is the client.</summary>
internal sealed unsafe class PtyEnd : ConnectionEnd
{
    private readonly FileDescriptor _master;

    internal PtyEnd()
    {
        int master, slave;
        byte* name = stackalloc byte[128];
        termios raw = default;

        // The pointers are to locals, and the kernel's paths of pseudo-terminals are far shorter than the name's 128 bytes.
        if (LibC.openpty(&master, &slave, name, null, null) != 0)
            throw VmmException.Host($"Cannot make a pseudo-terminal for a console: {LibC.strerror(LibC.errno)}; is /dev/pts mounted?");
        _master = new FileDescriptor(master);
        Location = System.Runtime.InteropServices.Marshal.PtrToStringUTF8((nint)name)!;

        // Raw, so that nothing the guest writes comes back as its input. Closing the slave leaves that as it is, and makes the master
        // say that nobody is there (POLLHUP) from now on.
        _ = LibC.tcgetattr(slave, &raw);
        LibC.cfmakeraw(&raw);
        _ = LibC.tcsetattr(slave, LibC.TCSANOW, &raw);
        _ = LibC.close(slave);
        _ = LibC.fcntl(master, LibC.F_SETFL, LibC.fcntl(master, LibC.F_GETFL, 0) | LibC.O_NONBLOCK);
        _ = LibC.fcntl(master, LibC.F_SETFD, LibC.FD_CLOEXEC);
    }

    internal override string Location { get; }

    internal override int WaitFd => -1;

    internal override int LookEvery => 100;

    internal override int TryConnect()
    {
        var look = new pollfd { fd = _master.Number, events = LibC.POLLOUT };
        return LibC.poll(&look, 1, 0) >= 0 && (look.revents & LibC.POLLHUP) == 0 ? _master.Number : -1;
    }

    internal override void Disconnect()
    {
    }

    internal override nint Send(int fd, ReadOnlySpan<byte> data)
    {
        fixed (byte* bytes = data)
            return LibC.write(fd, bytes, (nuint)data.Length);
    }

    public override void Dispose() => _master.Dispose();
}

/// <summary>A listening Unix socket, for one client at a time; the next ones wait in its queue.</summary>
internal sealed unsafe class SocketEnd(string path) : ConnectionEnd
{
    private readonly UnixListener _listener = UnixListener.Listen(path, "the console socket");
    private UnixStream? _client;

    // There is no descriptor or memory for a client that waits: poll would say all the time that it is there.
    private bool _cannotAccept;

    internal override string Location => path;

    internal override int WaitFd => _cannotAccept ? -1 : _listener.Number;

    internal override int LookEvery => _cannotAccept ? 500 : -1;

    internal override int TryConnect()
    {
        _client = _listener.TryAccept(out int error);
        _cannotAccept = _client == null && error is not (LibC.EAGAIN or LibC.EINTR);
        return _client?.Number ?? -1;
    }

    internal override void Disconnect()
    {
        _client?.Dispose();
        _client = null;
    }

    internal override nint Send(int fd, ReadOnlySpan<byte> data)
    {
        // Without MSG_NOSIGNAL a client that leaves could end the process with SIGPIPE.
        fixed (byte* bytes = data)
            return LibC.send(fd, bytes, (nuint)data.Length, LibC.MSG_NOSIGNAL);
    }

    public override void Dispose()
    {
        Disconnect();
        _listener.Dispose();
    }
}
