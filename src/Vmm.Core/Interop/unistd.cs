using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

internal static unsafe partial class LibC
{
    internal const int _SC_PAGESIZE = 30;
    internal const int _SC_PHYS_PAGES = 85;

    internal const int R_OK = 4;
    internal const int W_OK = 2;

    internal const int SEEK_END = 2;

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int close(int fd);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint read(int fd, void* buf, nuint count);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint write(int fd, void* buf, nuint count);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint pread(int fd, void* buf, nuint count, long offset);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint pwrite(int fd, void* buf, nuint count, long offset);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int ftruncate(int fd, long length);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial long lseek(int fd, long offset, int whence);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int fdatasync(int fd);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int pipe2(int* pipefd, int flags);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int dup(int oldfd);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int isatty(int fd);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial long sysconf(int name);

    [LibraryImport(libc, SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int access(string pathname, int mode);

    [LibraryImport(libc, SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int unlink(string pathname);

    [LibraryImport(libc)]
    internal static partial int getpid();

    [LibraryImport(libc)]
    internal static partial uint geteuid();

    [LibraryImport(libc)]
    internal static partial int gettid();

    /// <summary>syscall(2), which is variadic; all that are called have six arguments at most.</summary>
    [LibraryImport(libc, SetLastError = true)]
    internal static partial long syscall(long number, nuint a1, nuint a2, nuint a3, nuint a4, nuint a5, nuint a6);

    [LibraryImport(libc)]
    internal static partial void _exit(int status);
}
