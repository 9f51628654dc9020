using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

internal struct winsize
{
    internal ushort ws_row;
    internal ushort ws_col;
    internal ushort ws_xpixel;
    internal ushort ws_ypixel;
}

internal static unsafe partial class LibC
{
    internal const uint TIOCGWINSZ = 0x5413;

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int ioctl(int fd, nuint request, void* argp);

    /// <summary>ioctl(2) whose argument is a number, or nothing (0).</summary>
    [LibraryImport(libc, SetLastError = true)]
    internal static partial int ioctl(int fd, nuint request, nuint arg);
}
