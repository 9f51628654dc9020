using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

internal static unsafe partial class LibC
{
    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint readv(int fd, void* iov, int iovcnt);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint writev(int fd, void* iov, int iovcnt);
}
