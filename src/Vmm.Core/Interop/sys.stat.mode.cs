using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

internal static partial class LibC
{
    [LibraryImport(libc, SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int chmod(string pathname, uint mode);
}
