using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

internal static partial class LibC
{
    internal const int EFD_SEMAPHORE = 1;
    internal const int EFD_NONBLOCK = 0x800;
    internal const int EFD_CLOEXEC = 0x80000;

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int eventfd(uint initval, int flags);
}
