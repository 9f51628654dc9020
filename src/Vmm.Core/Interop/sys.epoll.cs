using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal struct epoll_event
{
    internal uint events;
    internal ulong data;
}

internal static unsafe partial class LibC
{
    internal const int EPOLL_CLOEXEC = 0x80000;
    internal const int EPOLL_CTL_ADD = 1;
    internal const int EPOLL_CTL_DEL = 2;
    internal const int EPOLL_CTL_MOD = 3;
    internal const uint EPOLLIN = 1;
    internal const uint EPOLLOUT = 4;
    internal const uint EPOLLERR = 8;
    internal const uint EPOLLHUP = 0x10;
    internal const uint EPOLLET = 1u << 31;

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int epoll_create1(int flags);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int epoll_ctl(int epfd, int op, int fd, epoll_event* @event);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout);
}
