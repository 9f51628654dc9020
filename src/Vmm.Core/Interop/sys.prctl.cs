using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

internal static unsafe partial class LibC
{
    internal const int PR_SET_NAME = 15;

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int prctl(int option, void* arg2);
}
