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

    // Safe: the range is this object's own and nobody is handed a pointer that outlives it.
    protected override bool ReleaseHandle() => LibC.munmap((void*)handle, Length) == 0;
}
