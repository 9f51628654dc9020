using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Sockets;

/// <summary>
/// One end of a connection of stream sockets in AF_UNIX, which can carry file descriptors (unix(7), SCM_RIGHTS). Nothing a peer does makes a
/// member throw or wait past its deadline. One thread may send while another receives; <see cref="Shutdown"/> may be called by any.
/// </summary>
public sealed unsafe class UnixStream : IDisposable
{
    /// <summary>The most descriptors that Linux passes with one message (SCM_MAX_FD).</summary>
    public const int MaximumDescriptors = 253;

    // Room for all of them: a smaller buffer would make the kernel drop some and hide how many came.
    private const int ControlLength = 16 + (((MaximumDescriptors * sizeof(int)) + 7) & ~7);

    private readonly FileDescriptor _fd;

    internal UnixStream(FileDescriptor fd) => _fd = fd;

    /// <summary>The descriptor's number; valid until <see cref="Dispose"/>.</summary>
    public int Number => _fd.Number;

    /// <summary>Connects to whoever listens at a path.</summary>
    /// <param name="path">At most 107 bytes in UTF-8.</param>
    /// <param name="error">errno, where the result is null.</param>
    public static UnixStream? TryConnect(string path, out int error)
    {
        if (!TryAddress(path, out sockaddr_un address))
        {
            error = EINVAL;
            return null;
        }
        // Not blocking: the queue of one who listens and never accepts may be full.
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        error = errno;
        if (fd < 0)
            return null;
        var owner = new FileDescriptor(fd);
        int result;
        do
            result = connect(fd, &address, (uint)sizeof(sockaddr_un));
        while (result < 0 && errno == EINTR);
        if (result == 0)
        {
            error = 0;
            return new UnixStream(owner);
        }
        error = errno;
        owner.Dispose();
        return null;
    }

    /// <summary>Makes two ends of one connection.</summary>
    /// <exception cref="VmmException">The process has no descriptor left.</exception>
    public static (UnixStream Ours, UnixStream Theirs) CreatePair()
    {
        int* fds = stackalloc int[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
            throw VmmException.Host($"Cannot make a pair of sockets: {strerror(errno)} (errno {errno}). Raise the limit on open files (ulimit -n).");
        return (new UnixStream(new FileDescriptor(fds[0])), new UnixStream(new FileDescriptor(fds[1])));
    }

    /// <summary>
    /// Sends all bytes; the descriptors go with the first of them. The peer gets duplicates: the caller's stay its own.
    /// </summary>
    /// <param name="data">At least one byte.</param>
    /// <param name="descriptors">At most <see cref="MaximumDescriptors"/>.</param>
    /// <param name="timeoutMilliseconds">How long the peer may take to make room, all in all.</param>
    /// <returns>0, or an errno: EPIPE or ECONNRESET where the peer has gone, ETIMEDOUT where it does not read.</returns>
    public int Send(ReadOnlySpan<byte> data, ReadOnlySpan<int> descriptors, int timeoutMilliseconds)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(descriptors.Length, MaximumDescriptors);
        long deadline = Deadline(timeoutMilliseconds);
        byte* control = stackalloc byte[ControlLength];
        // Safe: the pointers are to pinned memory and to this frame, and the lengths are theirs.
        fixed (byte* start = data)
        {
            int sent = 0;
            while (sent < data.Length)
            {
                var part = new iovec { iov_base = start + sent, iov_len = (nuint)(data.Length - sent) };
                msghdr message = default;
                message.msg_iov = &part;
                message.msg_iovlen = 1;
                if (sent == 0 && !descriptors.IsEmpty)
                {
                    message.msg_control = control;
                    message.msg_controllen = Pack(descriptors, control);
                }
                nint result = sendmsg(_fd.Number, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (result >= 0)
                {
                    sent += (int)result;
                    continue;
                }
                int error = errno;
                if (error == EINTR)
                    continue;
                if (error != EAGAIN)
                    return error;
                error = Wait(POLLOUT, deadline);
                if (error != 0)
                    return error;
            }
        }
        return 0;
    }

    /// <summary>Receives exactly as many bytes as there is room for, and whatever descriptors come with them.</summary>
    /// <param name="data">Where to.</param>
    /// <param name="descriptors">
    /// The descriptors are added to it, close-on-exec; they are the caller's, also where this fails. What comes beyond
    /// <see cref="MaximumDescriptors"/> of them is closed.
    /// </param>
    /// <param name="timeoutMilliseconds">How long the peer may take, all in all; -1 for ever.</param>
    /// <returns>0, or an errno: ECONNRESET where the peer has gone, ETIMEDOUT where it took too long.</returns>
    internal int ReceiveExactly(Span<byte> data, List<FileDescriptor> descriptors, int timeoutMilliseconds)
    {
        long deadline = Deadline(timeoutMilliseconds);
        while (!data.IsEmpty)
        {
            int result = Receive(data, descriptors);
            if (result > 0)
            {
                data = data[result..];
                continue;
            }
            if (result == 0)
                return ECONNRESET;
            if (result != -EAGAIN)
                return -result;
            int error = Wait(POLLIN, deadline);
            if (error != 0)
                return error;
        }
        return 0;
    }

    /// <summary>Receives what is there, without waiting.</summary>
    /// <param name="data">Where to; at least one byte.</param>
    /// <param name="descriptors">The descriptors are added to it, close-on-exec; they are the caller's.</param>
    /// <returns>The number of bytes; 0 where the peer has gone; or a negative errno: -EAGAIN where nothing is there.</returns>
    internal int Receive(Span<byte> data, List<FileDescriptor> descriptors)
    {
        byte* control = stackalloc byte[ControlLength];
        // Safe: as in Send.
        fixed (byte* start = data)
        {
            while (true)
            {
                var part = new iovec { iov_base = start, iov_len = (nuint)data.Length };
                msghdr message = default;
                message.msg_iov = &part;
                message.msg_iovlen = 1;
                message.msg_control = control;
                message.msg_controllen = ControlLength;
                nint result = recvmsg(_fd.Number, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
                if (result >= 0)
                {
                    Unpack(control, message.msg_controllen, descriptors);
                    return (int)result;
                }
                if (errno != EINTR)
                    return -errno;
            }
        }
    }

    /// <summary>Whether bytes, or the peer's end, are there to be received.</summary>
    public bool HasInput
    {
        get
        {
            var wanted = new pollfd { fd = _fd.Number, events = POLLIN };
            return poll(&wanted, 1, 0) > 0;
        }
    }

    /// <summary>Ends the connection in both directions: whoever waits in it, on either side, is woken.</summary>
    public void Shutdown()
    {
        bool held = false;
        try
        {
            _fd.DangerousAddRef(ref held);
            _ = shutdown(_fd.Number, SHUT_RDWR);
        }
        catch (ObjectDisposedException)
        {
            // It has ended.
        }
        finally
        {
            if (held)
                _fd.DangerousRelease();
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _fd.Dispose();

    /// <summary>The address of a path; false where it is empty or too long for one.</summary>
    internal static bool TryAddress(string path, out sockaddr_un address)
    {
        address = default;
        address.sun_family = AF_UNIX;
        Span<byte> room = address.sun_path;
        // The last byte stays the terminating zero.
        return path.Length > 0 && !path.Contains('\0') && System.Text.Encoding.UTF8.TryGetBytes(path, room[..^1], out _);
    }

    private static nuint Pack(ReadOnlySpan<int> descriptors, byte* control)
    {
        var header = (cmsghdr*)control;
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = (nuint)(sizeof(cmsghdr) + (descriptors.Length * sizeof(int)));
        descriptors.CopyTo(new Span<int>(control + sizeof(cmsghdr), descriptors.Length));
        return (header->cmsg_len + 7) & ~(nuint)7;
    }

    private static void Unpack(byte* control, nuint length, List<FileDescriptor> descriptors)
    {
        nuint at = 0;
        // The kernel made it; what it does not fill is left alone.
        while (at + (nuint)sizeof(cmsghdr) <= length)
        {
            var header = (cmsghdr*)(control + at);
            if (header->cmsg_len < (nuint)sizeof(cmsghdr) || header->cmsg_len > length - at)
                return;
            if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
            {
                var numbers = new ReadOnlySpan<int>(control + at + sizeof(cmsghdr), (int)(header->cmsg_len - (nuint)sizeof(cmsghdr)) / sizeof(int));
                foreach (int number in numbers)
                {
                    var descriptor = new FileDescriptor(number);
                    // A peer could send so many with each byte.
                    if (descriptors.Count < MaximumDescriptors)
                        descriptors.Add(descriptor);
                    else
                        descriptor.Dispose();
                }
            }
            at += (header->cmsg_len + 7) & ~(nuint)7;
        }
    }

    private static long Deadline(int milliseconds) => milliseconds < 0 ? long.MaxValue : Environment.TickCount64 + milliseconds;

    private int Wait(short events, long deadline)
    {
        while (true)
        {
            long left = deadline == long.MaxValue ? -1 : deadline - Environment.TickCount64;
            if (left <= 0 && deadline != long.MaxValue)
                return ETIMEDOUT;
            var wanted = new pollfd { fd = _fd.Number, events = events };
            int result = poll(&wanted, 1, (int)Math.Min(left, int.MaxValue));
            if (result > 0)
                return 0;
            if (result < 0 && errno != EINTR)
                return errno;
        }
    }
}
