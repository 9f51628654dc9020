using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

internal static unsafe partial class LibC
{
    internal const int CLOCK_MONOTONIC = 1;
    internal const int CLOCK_PROCESS_CPUTIME_ID = 2;
    internal const int CLOCK_THREAD_CPUTIME_ID = 3;

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int clock_gettime(int clockid, timespec* tp);
}
