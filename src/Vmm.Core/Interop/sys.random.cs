using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

internal static unsafe partial class LibC
{
    internal const uint GRND_NONBLOCK = 1;

    [LibraryImport(libc, SetLastError = true)]
    internal static partial nint getrandom(void* buf, nuint buflen, uint flags);
}
