using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

internal static unsafe partial class LibC
{
    internal const int PROT_NONE = 0;
    internal const int PROT_READ = 1;
    internal const int PROT_WRITE = 2;

    internal const int MAP_SHARED = 1;
    internal const int MAP_PRIVATE = 2;
    internal const int MAP_FIXED = 0x10;
    internal const int MAP_ANONYMOUS = 0x20;
    internal const int MAP_NORESERVE = 0x4000;
    internal const int MAP_POPULATE = 0x8000;
    internal const int MAP_HUGETLB = 0x40000;
    internal const int MAP_HUGE_SHIFT = 26;

    internal const int MADV_DONTNEED = 4;
    internal const int MADV_REMOVE = 9;
    internal const int MADV_HUGEPAGE = 14;
    internal const int MADV_DONTDUMP = 16;

    internal const uint MFD_CLOEXEC = 1;
    internal const uint MFD_ALLOW_SEALING = 2;
    internal const uint MFD_HUGETLB = 4;

    internal static readonly void* MAP_FAILED = (void*)-1;

    [LibraryImport(libc, SetLastError = true)]
    internal static partial void* mmap(void* addr, nuint length, int prot, int flags, int fd, long offset);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int munmap(void* addr, nuint length);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int mprotect(void* addr, nuint len, int prot);

    [LibraryImport(libc, SetLastError = true)]
    internal static partial int madvise(void* addr, nuint length, int advice);

    [LibraryImport(libc, SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int memfd_create(string name, uint flags);
}
