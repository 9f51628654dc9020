using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

internal struct timeval
{
    internal long tv_sec;
    internal long tv_usec;
}

/// <summary>The times, and the size of the rest.</summary>
[StructLayout(LayoutKind.Explicit, Size = 144)]
internal struct rusage
{
    [FieldOffset(0)] internal timeval ru_utime;
    [FieldOffset(16)] internal timeval ru_stime;
}

internal static unsafe partial class LibC
{
    internal const int RUSAGE_SELF = 0;
    internal const int RUSAGE_CHILDREN = -1;

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int getrusage(int who, rusage* usage);
}
