using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Sockets;

/// <summary>A listening socket in AF_UNIX at a path of the file system, which it removes again.</summary>
public sealed unsafe class UnixListener : IDisposable
{
    private const int Backlog = 4;

    private readonly FileDescriptor _fd;
    private readonly string _path;

    private UnixListener(FileDescriptor fd, string path)
    {
        _fd = fd;
        _path = path;
    }

    /// <summary>The descriptor's number, which is readable when somebody connects; valid until <see cref="Dispose"/>.</summary>
    public int Number => _fd.Number;

    /// <summary>
    /// Listens at a path, for the owner of this process only: whoever can connect is trusted with what is behind it. A socket there that
    /// nobody listens at any more is replaced.
    /// </summary>
    /// <param name="path">At most 107 bytes in UTF-8.</param>
    /// <param name="what">Names it in errors: "the console socket".</param>
    /// <exception cref="VmmException">Something else is there, or the host refuses.</exception>
    public static UnixListener Listen(string path, string what)
    {
        if (!UnixStream.TryAddress(path, out sockaddr_un address))
        {
            int length = System.Text.Encoding.UTF8.GetByteCount(path);
            string why = length > 107 ? $"its path is too long for the kernel: {length} bytes, at most 107" : "its path is empty or has a zero byte in it";
            throw VmmException.Configuration($"Cannot listen on {what} {path}: {why}; use another path.");
        }
        int number = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (number < 0)
            throw VmmException.Host($"Cannot make {what}: {strerror(errno)}.");
        var listener = new UnixListener(new FileDescriptor(number), path);
        int error = listener.TryBind(&address);
        if (error == EADDRINUSE && IsAbandoned(path))
        {
            File.Delete(path);
            error = listener.TryBind(&address);
        }
        if (error != 0)
        {
            listener._fd.Dispose();
            string why = error == EADDRINUSE ? "something is there already" : strerror(error);
            throw VmmException.Configuration($"Cannot listen on {what} {path}: {why}; use another path or remove it.");
        }
        if (chmod(path, 0x180 /* 0600 */) != 0 || listen(number, Backlog) != 0)
        {
            error = errno;
            listener.Dispose();
            throw VmmException.Host($"Cannot listen on {what} {path}: {strerror(error)}.");
        }
        return listener;
    }

    /// <summary>Takes who has connected, without waiting; null where nobody has.</summary>
    public UnixStream? TryAccept() => TryAccept(out _);

    /// <summary>The same, and says why nobody could be taken.</summary>
    /// <param name="error">
    /// errno, where the result is null: EAGAIN where nobody is there. After others the socket may stay readable, as with EMFILE: who watches
    /// it then looks again after a while.
    /// </param>
    internal UnixStream? TryAccept(out int error)
    {
        int fd = accept4(_fd.Number, null, null, SOCK_CLOEXEC | SOCK_NONBLOCK);
        error = fd < 0 ? errno : 0;
        return fd < 0 ? null : new UnixStream(new FileDescriptor(fd));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_fd.IsClosed)
            return;
        _fd.Dispose();
        try
        {
            File.Delete(_path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Somebody took the directory away; the next run finds an abandoned socket at worst.
        }
    }

    private int TryBind(sockaddr_un* address) => bind(_fd.Number, address, (uint)sizeof(sockaddr_un)) == 0 ? 0 : errno;

    /// <summary>Left behind by a program that was killed: a socket that refuses connections. So does a file, which is not ours to remove.</summary>
    private static bool IsAbandoned(string path)
    {
        using UnixStream? probe = UnixStream.TryConnect(path, out int error);
        statx status;
        return probe == null && error == ECONNREFUSED
            && statx(AT_FDCWD, path, 0, STATX_TYPE, &status) == 0 && (status.stx_mode & S_IFMT) == S_IFSOCK;
    }
}
