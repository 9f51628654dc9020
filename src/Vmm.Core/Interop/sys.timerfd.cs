using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

internal struct itimerspec
{
    internal timespec it_interval;
    internal timespec it_value;
}

internal static unsafe partial class LibC
{
    internal const int TFD_NONBLOCK = 0x800;
    internal const int TFD_CLOEXEC = 0x80000;

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int timerfd_create(int clockid, int flags);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int timerfd_settime(int fd, int flags, itimerspec* new_value, itimerspec* old_value);
}
