using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

internal static unsafe partial class LibC
{
    /// <summary>In libc itself since glibc 2.34; <paramref name="name"/> needs room for a path of /dev/pts (64 bytes are plenty).</summary>
    [LibraryImport(libc, SetLastError = true)]
    internal static partial int openpty(int* amaster, int* aslave, byte* name, termios* termp, void* winp);
}
