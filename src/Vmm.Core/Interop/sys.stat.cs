using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

/// <summary>The fields that are used here, in the size of the whole.</summary>
[StructLayout(LayoutKind.Explicit, Size = 256)]
internal struct statx
{
    [FieldOffset(0)] internal uint stx_mask;
    [FieldOffset(4)] internal uint stx_blksize;
    [FieldOffset(28)] internal ushort stx_mode;
    [FieldOffset(40)] internal ulong stx_size;
    [FieldOffset(128)] internal uint stx_rdev_major;
    [FieldOffset(132)] internal uint stx_rdev_minor;
    [FieldOffset(152)] internal uint stx_dio_mem_align;
    [FieldOffset(156)] internal uint stx_dio_offset_align;
}

internal static unsafe partial class LibC
{
    internal const int AT_FDCWD = -100;
    internal const int AT_EMPTY_PATH = 0x1000;
    internal const int AT_STATX_DONT_SYNC = 0x4000;
    internal const uint STATX_TYPE = 0x1;
    internal const uint STATX_SIZE = 0x200;
    internal const uint STATX_DIOALIGN = 0x2000;
    internal const int S_IFMT = 0xF000;
    internal const int S_IFIFO = 0x1000;
    internal const int S_IFCHR = 0x2000;
    internal const int S_IFBLK = 0x6000;
    internal const int S_IFREG = 0x8000;
    internal const int S_IFDIR = 0x4000;
    internal const int S_IFSOCK = 0xC000;

    [LibraryImport(libc, SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int statx(int dirfd, string pathname, int flags, uint mask, statx* statxbuf);

    [LibraryImport(libc, SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int chmod(string pathname, uint mode);
}
