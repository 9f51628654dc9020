using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

internal unsafe struct iovec
{
    internal void* iov_base;
    internal nuint iov_len;
}

internal static unsafe partial class LibC
{
    internal const int RWF_DSYNC = 2;

    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint readv(int fd, void* iov, int iovcnt);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint writev(int fd, void* iov, int iovcnt);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint preadv2(int fd, iovec* iov, int iovcnt, long offset, int flags);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint pwritev2(int fd, iovec* iov, int iovcnt, long offset, int flags);
}
