using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

internal static unsafe partial class LibC
{
    [LibraryImport(libc, SetLastError = true)]
    internal static partial int ioctl(int fd, nuint request, void* argp);

    /// <summary>ioctl(2) whose argument is a number, or nothing (0).</summary>
    [LibraryImport(libc, SetLastError = true)]
    internal static partial int ioctl(int fd, nuint request, nuint arg);
}
