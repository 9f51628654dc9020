using Vmm.Core.Interop;

namespace Vmm.Machine.Console;

/// <summary>
/// Descriptors 0 to 2 when the program was started without some of them (<c>vmm run &gt;&amp;-</c>). The kernel gives their numbers to the
/// next files that are opened, by the runtime before our first line already; what was meant for standard output must not end up there.
/// An inherited descriptor has survived execve, so it cannot be one that closes there: that tells ours from others.
/// </summary>
public static class StandardStreams
{
    private static readonly bool[] s_missing = new bool[3];

    /// <summary>Finds out which are missing, and takes their numbers so that nothing else gets them. First thing in the program.</summary>
    public static void Claim()
    {
        for (int fd = 0; fd < s_missing.Length; fd++)
        {
            int flags = LibC.fcntl(fd, LibC.F_GETFD, 0);
            s_missing[fd] = flags < 0 || (flags & LibC.FD_CLOEXEC) != 0;

            // Gets the lowest free number, which is this one; whoever uses it regardless is told EBADF, as without it.
            if (flags < 0)
                _ = LibC.open("/dev/null", (fd == 0 ? LibC.O_WRONLY : LibC.O_RDONLY) | LibC.O_CLOEXEC, 0);
        }
    }

    /// <summary>Whether the program was started without it; false before <see cref="Claim"/>.</summary>
    /// <param name="fd">0 to 2.</param>
    public static bool IsMissing(int fd) => s_missing[fd];

    /// <summary>Writes all bytes to a descriptor, waiting where it takes no more for now; without System.Console, which would take the terminal's settings in hand.</summary>
    /// <param name="fd">The descriptor; left open.</param>
    /// <param name="bytes">What to write.</param>
    /// <returns>0, or the errno of what went wrong.</returns>
    public static unsafe int WriteAll(int fd, ReadOnlySpan<byte> bytes)
    {
        // The bytes are pinned for the calls, and the length is what is left of them.
        fixed (byte* start = bytes)
        {
            for (int at = 0; at < bytes.Length;)
            {
                nint written = LibC.write(fd, start + at, (nuint)(bytes.Length - at));
                if (written >= 0)
                {
                    at += (int)written;
                    continue;
                }

                int error = LibC.errno;
                if (error == LibC.EAGAIN)
                {
                    // Somebody else who has this terminal or pipe has made it non-blocking.
                    var wait = new pollfd { fd = fd, events = LibC.POLLOUT };
                    _ = LibC.poll(&wait, 1, -1);
                }
                else if (error != LibC.EINTR)
                {
                    return error;
                }
            }
        }

        return 0;
    }
}
