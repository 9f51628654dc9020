using System.Text;
using Vmm.Core;
using Vmm.Core.Interop;

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
internal sealed unsafe class SocketEnd : ConnectionEnd
{
    private readonly FileDescriptor _listener;
    private FileDescriptor? _client;

    internal SocketEnd(string path)
    {
        Location = path;
        sockaddr_un address = default;
        address.sun_family = LibC.AF_UNIX;
        byte[] name = Encoding.UTF8.GetBytes(path);
        Span<byte> room = address.sun_path;
        if (name.Length >= room.Length)
            throw VmmException.Configuration($"The socket path {path} is too long for the kernel: {name.Length} bytes, at most {room.Length - 1}; use a shorter one.");
        name.CopyTo(room);

        _listener = NewSocket();
        int error = TryBind(&address);
        if (error != 0)
        {
            // A socket that an earlier run left behind refuses connections, and goes; anything else stays.
            if (error != LibC.EADDRINUSE || !IsAbandoned(&address))
            {
                _listener.Dispose();
                string why = error == LibC.EADDRINUSE ? "something is there already" : LibC.strerror(error);
                throw VmmException.Configuration($"Cannot listen on the console socket {path}: {why}; use another path or remove it.");
            }

            File.Delete(path);
            error = TryBind(&address);
            if (error != 0)
            {
                _listener.Dispose();
                throw VmmException.Host($"Cannot listen on the console socket {path}: {LibC.strerror(error)}.");
            }
        }

        // Whoever can connect has the guest's console: only the owner.
        if (LibC.chmod(path, 0x180 /* 0600 */) != 0 || LibC.listen(_listener.Number, 4) != 0)
        {
            error = LibC.errno;
            Dispose();
            throw VmmException.Host($"Cannot listen on the console socket {path}: {LibC.strerror(error)}.");
        }
    }

    internal override string Location { get; }

    internal override int WaitFd => _listener.Number;

    internal override int LookEvery => -1;

    internal override int TryConnect()
    {
        int fd = LibC.accept4(_listener.Number, null, null, LibC.SOCK_NONBLOCK | LibC.SOCK_CLOEXEC);
        if (fd < 0)
            return -1;
        _client = new FileDescriptor(fd);
        return fd;
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
        try
        {
            File.Delete(Location);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Somebody took the directory away; the next run finds an abandoned socket at worst.
        }
    }

    private static FileDescriptor NewSocket()
    {
        int fd = LibC.socket(LibC.AF_UNIX, LibC.SOCK_STREAM | LibC.SOCK_CLOEXEC | LibC.SOCK_NONBLOCK, 0);
        return fd >= 0 ? new FileDescriptor(fd) : throw VmmException.Host($"Cannot make a console socket: {LibC.strerror(LibC.errno)}.");
    }

    private int TryBind(sockaddr_un* address) =>
        LibC.bind(_listener.Number, address, (uint)sizeof(sockaddr_un)) == 0 ? 0 : LibC.errno;

    private static bool IsAbandoned(sockaddr_un* address)
    {
        using FileDescriptor probe = NewSocket();

        // A regular file in its place refuses connections as well, and is not ours to remove.
        return LibC.connect(probe.Number, address, (uint)sizeof(sockaddr_un)) != 0 && LibC.errno == LibC.ECONNREFUSED && IsSocket(address);
    }

    private static bool IsSocket(sockaddr_un* address)
    {
        string path = System.Runtime.InteropServices.Marshal.PtrToStringUTF8((nint)(&address->sun_path))!;
        try
        {
            // FileAttributes.Normal is a plain file; .NET calls sockets, pipes and devices Normal too, but only a plain file can be opened.
            using FileStream file = new(path, FileMode.Open, FileAccess.Read);
            return false;
        }
        catch (IOException)
        {
            // open(2) of a socket fails with ENXIO.
            return true;
        }
        catch (UnauthorizedAccessException)
        {
            return false;
        }
    }
}
