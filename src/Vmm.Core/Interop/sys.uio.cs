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
    internal const int RWF_NOWAIT = 8;

    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint readv(int fd, void* iov, int iovcnt);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint writev(int fd, void* iov, int iovcnt);

    /// <summary>Copies out of a process's memory; what cannot be read is EFAULT or a short count, never a signal.</summary>
    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint process_vm_readv(int pid, iovec* local_iov, nuint liovcnt, iovec* remote_iov, nuint riovcnt, nuint flags);

    /// <summary>Copies into a process's memory; what cannot be written is EFAULT or a short count, never a signal.</summary>
    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint process_vm_writev(int pid, iovec* local_iov, nuint liovcnt, iovec* remote_iov, nuint riovcnt, nuint flags);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint preadv2(int fd, iovec* iov, int iovcnt, long offset, int flags);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint pwritev2(int fd, iovec* iov, int iovcnt, long offset, int flags);
}
