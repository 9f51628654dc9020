using Vmm.Core.Interop;
using Vmm.Core.Memory;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.SharedMemory;

/// <summary>What must be known of a descriptor before it is mapped.</summary>
/// <param name="PageSize">What it is mapped in whole multiples of.</param>
/// <param name="CanVanish">Whether pages of it can vanish, as it is a file that somebody may truncate.</param>
internal readonly record struct MappableFile(ulong PageSize, bool CanVanish)
{
    private const uint SmallestHugePage = 2 << 20;

    /// <summary>Finds whether a range of it may be mapped.</summary>
    /// <param name="fd">A descriptor that a peer sent.</param>
    /// <param name="offset">Where in the file.</param>
    /// <param name="length">Bytes; with the offset not more than a file can have.</param>
    /// <param name="file">What was found.</param>
    /// <returns>0, EBADF, ENODEV or ENXIO.</returns>
    internal static unsafe int Check(int fd, ulong offset, ulong length, out MappableFile file)
    {
        file = default;
        int flags = fd < 0 ? -1 : fcntl(fd, F_GETFL, 0);
        if (flags < 0 || (flags & O_PATH) != 0)
            return EBADF;
        statx status;
        // Not synchronized: a file system in user space, which may be the peer's, could let us wait for ever.
        if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_SIZE, &status) < 0)
            return errno;
        switch (status.stx_mode & S_IFMT)
        {
            // The kernel's own objects have no type: dma-bufs, and others of which most cannot be mapped. Nobody truncates them.
            case 0:
                file = new MappableFile(MemoryLayout.PageSize, CanVanish: false);
                return 0;
            case S_IFREG:
                if (status.stx_size < offset + length)
                    return ENXIO;
                // The block size of hugetlbfs is its page size. mmap would round up to it by itself, whatever lies beyond.
                bool huge = status.stx_blksize >= SmallestHugePage && System.Numerics.BitOperations.IsPow2(status.stx_blksize);
                int seals = fcntl(fd, F_GET_SEALS, 0);
                file = new MappableFile(huge ? status.stx_blksize : MemoryLayout.PageSize, seals < 0 || (seals & F_SEAL_SHRINK) == 0);
                return 0;
            default:
                return ENODEV;
        }
    }
}
