using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

internal struct pollfd
{
    internal int fd;
    internal short events;
    internal short revents;
}

internal static unsafe partial class LibC
{
    internal const short POLLIN = 1;
    internal const short POLLOUT = 4;
    internal const short POLLERR = 8;
    internal const short POLLHUP = 0x10;

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int poll(pollfd* fds, nuint nfds, int timeout);
}
