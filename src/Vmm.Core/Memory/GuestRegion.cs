using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Memory;

/// <summary>One range of guest RAM and the host memory behind it.</summary>
/// <param name="Start">First guest-physical address; page-aligned.</param>
/// <param name="Length">Bytes; a multiple of the page size.</param>
/// <param name="HostAddress">Where it is mapped in this process; stays mapped as long as the owner of the memory lives.</param>
/// <param name="FileDescriptor">The memfd behind it, or -1 for anonymous memory.</param>
/// <param name="FileOffset">Offset of the range's first byte in that file.</param>
/// <param name="PageSize">
/// Bytes of one page of the host memory behind it, a power of two; a range of huge pages need neither begin nor end with one.
/// </param>
public sealed record GuestRegion(
    ulong Start, ulong Length, nint HostAddress, int FileDescriptor, ulong FileOffset, ulong PageSize = GuestRegion.SmallPage)
{
    /// <summary>Bytes of a page that is not huge.</summary>
    public const ulong SmallPage = 4096;

    /// <summary>The first address past the range.</summary>
    public ulong End => Start + Length;

    /// <summary>
    /// Gives pages back to the host, whoever has mapped them; they read as zeros until they are written again.
    /// </summary>
    /// <param name="offset">From the start of the region; a multiple of the page size.</param>
    /// <param name="length">Bytes; a multiple of the page size.</param>
    /// <returns>False where the host refuses, as it does for locked memory.</returns>
    internal unsafe bool TryDiscard(ulong offset, ulong length)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, Length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, Length - length);
        // Safe: the range lies in the region's mapping. Of a file, the pages go from the file too: a hole is punched into it.
        return madvise(Host + offset, (nuint)length, FileDescriptor >= 0 ? MADV_REMOVE : MADV_DONTNEED) == 0;
    }

    /// <summary>The host mapping as a pointer; valid for <see cref="Length"/> bytes.</summary>
    internal unsafe byte* Host => (byte*)HostAddress;
}
