using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

[InlineArray(16)]
internal struct sigset_t
{
    private ulong _element0;
}

internal struct timespec
{
    internal long tv_sec;
    internal long tv_nsec;
}

internal static unsafe partial class LibC
{
    internal const int SIG_BLOCK = 0;
    internal const int SIG_UNBLOCK = 1;
    internal const int SIG_SETMASK = 2;

    internal const int SIGHUP = 1;
    internal const int SIGINT = 2;
    internal const int SIGQUIT = 3;
    internal const int SIGKILL = 9;
    internal const int SIGPIPE = 13;
    internal const int SIGTERM = 15;
    internal const int SIGXFSZ = 25;

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int pthread_sigmask(int how, sigset_t* set, sigset_t* oldset);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int sigemptyset(sigset_t* set);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int sigaddset(sigset_t* set, int signum);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int sigdelset(sigset_t* set, int signum);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int sigtimedwait(sigset_t* set, void* info, timespec* timeout);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int tgkill(int tgid, int tid, int sig);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int kill(int pid, int sig);

    /// <summary>The C macro SIGRTMIN: the first real-time signal that the C library does not use itself.</summary>
    [LibraryImport(libc)]
    internal static partial int __libc_current_sigrtmin();
}
