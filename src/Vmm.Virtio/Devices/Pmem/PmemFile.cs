using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Core.Memory;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Devices.Pmem;

/// <summary>
/// The file behind persistent memory, mapped into this process so that KVM can map it on into the guest. Opened before the guest's address
/// space is laid out, which needs its length.
/// </summary>
/// <remarks>
/// This process never reads or writes the mapping: a file that somebody truncates while the guest runs would kill it (SIGBUS). Where the guest
/// reaches a page that is not there any more, it reads ones (<see cref="PmemRegion.Resolve"/>). Beyond the end of a file that does not fill its last
/// <see cref="MemoryLayout.PmemUnit"/> there is zeroed memory, so that nothing happens there.
/// </remarks>
public sealed unsafe class PmemFile : IDisposable
{
    private readonly FileDescriptor _file;
    private readonly HostMapping _reservation;
    private readonly bool _discardWrites;

    private PmemFile(PmemConfig config, FileDescriptor file, HostMapping reservation, nint address, ulong length, ulong fileLength)
    {
        Config = config;
        _file = file;
        _reservation = reservation;
        _discardWrites = config.DiscardWrites;
        HostAddress = address;
        Length = length;
        FileLength = fileLength;
    }

    /// <summary>What was asked for.</summary>
    public PmemConfig Config { get; }

    /// <summary>Bytes that the guest sees; a multiple of <see cref="MemoryLayout.PmemUnit"/>.</summary>
    public ulong Length { get; }

    /// <summary>Bytes of it that are the file's, whole pages; above 0. What is beyond is memory of this process.</summary>
    internal ulong FileLength { get; }

    /// <summary>What the mapping is a part of; alive as long as this.</summary>
    internal HostMapping Reservation => _reservation;

    /// <summary>Where it is mapped; a multiple of <see cref="MemoryLayout.PmemUnit"/>, so that KVM can use large pages.</summary>
    internal nint HostAddress { get; }

    /// <summary>Opens and maps the file.</summary>
    /// <exception cref="VmmException">It cannot be opened, is empty, or does not fit what was asked for.</exception>
    public static PmemFile Open(PmemConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        config.Validate();
        FileDescriptor file = OpenFile(config);
        try
        {
            Lock(config, file);
            ulong fileLength = LengthOf(config, file);
            ulong length = AlignUp(config.Size ?? fileLength, MemoryLayout.PmemUnit);
            (HostMapping reservation, nint address) = Map(config, file, fileLength, length);
            return new PmemFile(config, file, reservation, address, length, AlignUp(fileLength, MemoryLayout.PageSize));
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Waits until everything that the guest wrote is on the disk: the kernel finds what was written through the mapping. Any thread.
    /// </summary>
    /// <returns>0, or the errno.</returns>
    internal int Flush()
    {
        // Nothing of it will ever be in the file.
        if (_discardWrites)
            return 0;
        while (fdatasync(_file.Number) < 0)
        {
            if (errno != EINTR)
                return errno;
        }
        return 0;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _reservation.Dispose();
        _file.Dispose();
    }

    private static FileDescriptor OpenFile(PmemConfig config)
    {
        bool directory = Directory.Exists(config.File);
        if (directory && config.Size == null)
            throw VmmException.Configuration($"{Doing(config)}: it is a directory; say how large the new file in it shall be (size=), or name a file.");
        int flags = O_CLOEXEC | (directory ? O_TMPFILE | O_RDWR : config.DiscardWrites ? O_RDONLY : O_RDWR);
        int fd = open(config.File, flags, 0x180);
        if (fd >= 0)
            return new FileDescriptor(fd);
        throw VmmException.Configuration(errno switch
        {
            ENOENT => $"{Doing(config)}: it does not exist; make it first (truncate -s 1G FILE), or name another.",
            EACCES or EPERM => $"{Doing(config)}: permission denied; make it writable for this user, or use discard_writes=on.",
            int error => $"{Doing(config)}: {strerror(error)}.",
        });
    }

    /// <summary>One machine writes it, or several read it: pages that two guests believe to be theirs alone would be nobody's.</summary>
    private static void Lock(PmemConfig config, FileDescriptor file)
    {
        int error = FileLock.TryTake(file.Number, write: !config.DiscardWrites);
        if (error == EAGAIN)
        {
            throw VmmException.Configuration(
                $"{Doing(config)}: it is in use by another machine or program. Stop that one, or give each its own copy" +
                (config.DiscardWrites ? "; one that is written cannot be shared." : "; several can share a file only if all of them use discard_writes=on."));
        }
        if (error != 0)
            throw VmmException.Host($"{Doing(config)}: it cannot be locked: {strerror(error)}.");
    }

    private static ulong LengthOf(PmemConfig config, FileDescriptor file)
    {
        // Also right for block devices, whose status has no length.
        long found = lseek(file.Number, 0, SEEK_END);
        if (found < 0)
            throw VmmException.Configuration($"{Doing(config)}: it is not a file or block device ({strerror(errno)}).");
        var length = (ulong)found;
        if (config.Size is { } size)
        {
            if (length > size)
                throw VmmException.Configuration($"{Doing(config)}: it has {length} bytes, more than size={size}; leave size out, or raise it.");
            if (length < size && !config.DiscardWrites)
            {
                if (ftruncate(file.Number, checked((long)size)) < 0)
                    throw VmmException.Host($"{Doing(config)}: it cannot be made {size} bytes long: {strerror(errno)}.");
                return size;
            }
        }
        if (length == 0)
            throw VmmException.Configuration($"{Doing(config)}: it is empty; give it a length (truncate -s 1G FILE, or size=).");
        return length;
    }

    private static (HostMapping Reservation, nint Address) Map(PmemConfig config, FileDescriptor file, ulong fileLength, ulong length)
    {
        // Large enough to find an aligned place in it.
        HostMapping? reservation = HostMapping.TryMap((nuint)(length + MemoryLayout.PmemUnit), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
        if (reservation == null)
            throw VmmException.Host($"{Doing(config)}: {length} bytes cannot be mapped: {strerror(errno)}.");
        var address = (nint)AlignUp((ulong)reservation.Address, MemoryLayout.PmemUnit);
        ulong filled = AlignUp(fileLength, MemoryLayout.PageSize);
        int flags = MAP_FIXED | (config.DiscardWrites ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED);
        // Safe: both replace pages of our own reservation, which nobody uses yet.
        bool mapped = mmap((void*)address, (nuint)filled, PROT_READ | PROT_WRITE, flags, file.Number, 0) != MAP_FAILED
            && (filled == length || mmap((byte*)address + filled, (nuint)(length - filled), PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
        if (!mapped)
        {
            int error = errno;
            reservation.Dispose();
            throw VmmException.Host($"{Doing(config)}: it cannot be mapped: {strerror(error)}.");
        }
        _ = madvise((void*)address, (nuint)length, MADV_DONTDUMP);
        return (reservation, address);
    }

    private static string Doing(PmemConfig config) => $"Cannot use {config.File} as persistent memory '{config.Id}'";

    private static ulong AlignUp(ulong value, ulong alignment) => (value + (alignment - 1)) & ~(alignment - 1);
}
