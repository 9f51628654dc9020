using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

/// <summary>The field that is used here, in the size of the whole.</summary>
[StructLayout(LayoutKind.Explicit, Size = 256)]
internal struct statx
{
    [FieldOffset(28)] internal ushort stx_mode;
}

internal static unsafe partial class LibC
{
    internal const int AT_FDCWD = -100;
    internal const int AT_EMPTY_PATH = 0x1000;
    internal const uint STATX_TYPE = 0x1;
    internal const int S_IFMT = 0xF000;
    internal const int S_IFCHR = 0x2000;
    internal const int S_IFREG = 0x8000;
    internal const int S_IFDIR = 0x4000;

    [LibraryImport(libc, SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int statx(int dirfd, string pathname, int flags, uint mask, statx* statxbuf);

    [LibraryImport(libc, SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int chmod(string pathname, uint mode);
}
