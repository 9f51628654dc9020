using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

/// <summary>A range of this process's address space from mmap, unmapped exactly once.</summary>
internal sealed unsafe class HostMapping : SafeHandle
{
    private HostMapping(void* address, nuint length) : base(0, ownsHandle: true)
    {
        SetHandle((nint)address);
        Length = length;
    }

    internal nuint Length { get; }

    internal byte* Address => (byte*)handle;

    public override bool IsInvalid => handle == 0;

    /// <summary>mmap(2); null on failure, with errno set.</summary>
    internal static HostMapping? TryMap(nuint length, int prot, int flags, int fd = -1, long offset = 0)
    {
        void* address = LibC.mmap(null, length, prot, flags, fd, offset);
        return address == LibC.MAP_FAILED ? null : new HostMapping(address, length);
    }

    /// <summary>The same at an address that is a multiple of <paramref name="alignment"/>, a power of two of whole pages.</summary>
    internal static HostMapping? TryMapAligned(nuint length, nuint alignment, int prot, int flags, int fd = -1)
    {
        nuint room = length + alignment;
        var reserved = (byte*)LibC.mmap(null, room, LibC.PROT_NONE, LibC.MAP_PRIVATE | LibC.MAP_ANONYMOUS | LibC.MAP_NORESERVE, -1, 0);
        if (reserved == LibC.MAP_FAILED)
            return null;
        var start = (byte*)(((nuint)reserved + alignment - 1) & ~(alignment - 1));
        // Safe: it replaces pages of our own reservation, whose ends are given back.
        if (LibC.mmap(start, length, prot, flags | LibC.MAP_FIXED, fd, 0) == LibC.MAP_FAILED)
        {
            int error = LibC.errno;
            _ = LibC.munmap(reserved, room);
            Marshal.SetLastPInvokeError(error);
            return null;
        }
        nuint before = (nuint)(start - reserved);
        // munmap counts a part of a page at the end as all of it.
        nuint used = (length + 0xFFF) & ~(nuint)0xFFF;
        if (before > 0)
            _ = LibC.munmap(reserved, before);
        if (room > before + used)
            _ = LibC.munmap(start + used, room - before - used);
        return new HostMapping(start, length);
    }

    // Safe: the range is this object's own and nobody is handed a pointer that outlives it.
    protected override bool ReleaseHandle() => LibC.munmap((void*)handle, Length) == 0;
}
