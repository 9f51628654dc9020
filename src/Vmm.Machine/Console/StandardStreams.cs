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
}
