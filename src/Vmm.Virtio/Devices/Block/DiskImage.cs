using System.Numerics;
using System.Runtime.InteropServices;
using Vmm.Core;
using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Devices.Block;

/// <summary>
/// A raw image file or a block device, opened and locked. It outlives the devices that are made on it: a machine that restarts makes
/// its devices anew, and nobody else can take the image meanwhile.
/// </summary>
public sealed unsafe class DiskImage : IDisposable
{
    /// <summary>The unit of addresses and sizes (VIRTIO 1.3 §5.2.4), whatever the block size.</summary>
    public const uint SectorSize = 512;

    private const uint DefaultAlignment = 4096;

    private static readonly PosixSignalRegistration _fileSizeSignal = PosixSignalRegistration.Create((PosixSignal)SIGXFSZ, context => context.Cancel = true);

    private readonly FileDescriptor _file;
    private readonly FileDescriptor? _cached;
    private ulong _sectors;

    private DiskImage(BlockConfig config, FileDescriptor file, bool isBlockDevice)
    {
        Path = config.Path;
        ReadOnly = config.ReadOnly;
        _file = file;
        IsBlockDevice = isBlockDevice;
        _sectors = ReadSize() / SectorSize;
        if (isBlockDevice)
        {
            ReadGeometry();
            CanDiscard = !ReadOnly && HasQueueLimit("discard_max_bytes");
        }
        else
        {
            CanDiscard = !ReadOnly && CanPunchHoles();
        }
        if (config.Direct)
        {
            _cached = Reopen();
            ReadDirectAlignment();
        }
    }

    /// <summary>What it was opened as.</summary>
    public string Path { get; }

    /// <summary>Whether it can only be read.</summary>
    public bool ReadOnly { get; }

    /// <summary>Whether it is a block device, not a file.</summary>
    public bool IsBlockDevice { get; }

    /// <summary>Its size in whole sectors. Any thread.</summary>
    public ulong Sectors => Volatile.Read(ref _sectors);

    /// <summary>Its logical block size in bytes.</summary>
    public uint LogicalBlockSize { get; private set; } = SectorSize;

    /// <summary>The smallest write that does not make the host read first, in bytes; at least <see cref="LogicalBlockSize"/>.</summary>
    public uint PhysicalBlockSize { get; private set; } = DefaultAlignment;

    /// <summary>The smallest request that is done well, in bytes.</summary>
    public uint MinimumIoSize { get; private set; } = DefaultAlignment;

    /// <summary>The request size that is done best, in bytes; 0 where the host does not say.</summary>
    public uint OptimalIoSize { get; private set; }

    /// <summary>Whether space can be given back.</summary>
    public bool CanDiscard { get; }

    /// <summary>Whether the page cache is passed by.</summary>
    public bool IsDirect => _cached != null;

    /// <summary>What addresses and lengths in memory must be a multiple of where <see cref="IsDirect"/>.</summary>
    public uint DirectMemoryAlignment { get; private set; } = 1;

    /// <summary>What offsets and lengths in the image must be a multiple of where <see cref="IsDirect"/>.</summary>
    public uint DirectOffsetAlignment { get; private set; } = 1;

    /// <summary>The descriptor for what is aligned.</summary>
    internal int Descriptor => _file.Number;

    /// <summary>The descriptor for anything: through the page cache, which the kernel keeps coherent with the other.</summary>
    internal int CachedDescriptor => (_cached ?? _file).Number;

    /// <summary>Opens and locks an image.</summary>
    /// <exception cref="VmmException">It cannot be opened, is in use by another, or is nothing that can be a disk.</exception>
    public static DiskImage Open(BlockConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        // A write beyond RLIMIT_FSIZE is to fail with EFBIG, not to end the machine.
        GC.KeepAlive(_fileSizeSignal);
        // O_NONBLOCK: a FIFO would make open wait; it means nothing to files and disks.
        int flags = (config.ReadOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | (config.Direct ? O_DIRECT : 0);
        int fd = open(config.Path, flags, 0);
        if (fd < 0)
            throw OpenFailed(config, errno);
        var file = new FileDescriptor(fd);
        try
        {
            statx stat;
            if (statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &stat) < 0)
                throw Failed(config.Path, "look at", errno);
            int type = stat.stx_mode & S_IFMT;
            if (type is not (S_IFREG or S_IFBLK))
                throw VmmException.Configuration($"Cannot use {config.Path} as a disk: it is neither a file nor a block device.");
            Lock(config, fd);
            return new DiskImage(config, file, type == S_IFBLK);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Looks at the size again, after the image was grown or shrunk. Any thread.</summary>
    /// <returns>The size in whole sectors.</returns>
    /// <exception cref="VmmException">The host refuses to tell.</exception>
    public ulong RefreshSize()
    {
        ulong sectors = ReadSize() / SectorSize;
        Volatile.Write(ref _sectors, sectors);
        return sectors;
    }

    /// <summary>Closes and unlocks it; no device uses it any more.</summary>
    public void Dispose()
    {
        _cached?.Dispose();
        _file.Dispose();
    }

    private static void Lock(BlockConfig config, int fd)
    {
        int error = FileLock.TryTake(fd, write: !config.ReadOnly);
        if (error == 0)
            return;
        if (error != EAGAIN)
            throw Failed(config.Path, "lock", error);
        throw VmmException.Configuration(
            $"The disk image {config.Path} is in use by another machine or program. Stop that one, or give each its own copy" +
            (config.ReadOnly ? "; one that is written cannot be shared." : "; several can share an image only if all of them open it read-only (readonly=on)."));
    }

    private static VmmException OpenFailed(BlockConfig config, int error) => error switch
    {
        ENOENT => VmmException.Configuration($"There is no disk image {config.Path}. Make one, for example with: truncate -s 10G {config.Path}"),
        EACCES or EPERM or EROFS => VmmException.Configuration(
            $"Cannot open the disk image {config.Path}{(config.ReadOnly ? "" : " for writing")}: {strerror(error)} (errno {error}). Change its permissions" +
            (config.ReadOnly ? "." : ", or open it read-only (readonly=on).")),
        EINVAL when config.Direct => VmmException.Configuration($"Cannot open the disk image {config.Path} with direct=on: its file system has no O_DIRECT. Leave direct=on out."),
        EMFILE => VmmException.Host($"Cannot open the disk image {config.Path}: {strerror(error)} (errno {error}). Raise the limit on open files (ulimit -n)."),
        _ => VmmException.Configuration($"Cannot open the disk image {config.Path}: {strerror(error)} (errno {error})."),
    };

    private static VmmException Failed(string path, string doing, int error) =>
        VmmException.Host($"Cannot {doing} the disk image {path}: {strerror(error)} (errno {error}).");

    private FileDescriptor Reopen()
    {
        // By the descriptor, not by the path, which may name another file by now.
        int fd = open($"/proc/self/fd/{_file.Number}", (ReadOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK, 0);
        if (fd < 0)
            throw Failed(Path, "open a second time", errno);
        return new FileDescriptor(fd);
    }

    private ulong ReadSize()
    {
        if (IsBlockDevice)
        {
            ulong bytes;
            if (ioctl(_file.Number, BLKGETSIZE64, &bytes) < 0)
                throw Failed(Path, "get the size of", errno);
            return bytes;
        }
        statx stat;
        if (statx(_file.Number, "", AT_EMPTY_PATH, STATX_SIZE, &stat) < 0)
            throw Failed(Path, "get the size of", errno);
        return stat.stx_size;
    }

    /// <summary>Geometry of a block device; what it does not tell keeps its default.</summary>
    private void ReadGeometry()
    {
        LogicalBlockSize = Query(BLKSSZGET) is var logical and >= SectorSize and <= 65536 && BitOperations.IsPow2(logical) ? logical : SectorSize;
        PhysicalBlockSize = Query(BLKPBSZGET) is var physical && physical >= LogicalBlockSize && BitOperations.IsPow2(physical) ? physical : LogicalBlockSize;
        MinimumIoSize = Math.Max(Query(BLKIOMIN), PhysicalBlockSize);
        OptimalIoSize = Query(BLKIOOPT);
    }

    private uint Query(uint request)
    {
        uint value = 0;
        return ioctl(_file.Number, request, &value) < 0 ? 0 : value;
    }

    private void ReadDirectAlignment()
    {
        statx stat = default;
        bool told = statx(_file.Number, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stat) == 0 && (stat.stx_mask & STATX_DIOALIGN) != 0 && stat.stx_dio_offset_align != 0;
        // Kernels before 6.1 do not tell. What is aligned to a page is aligned enough everywhere, and what is not is bounced or cached.
        uint otherwise = IsBlockDevice ? LogicalBlockSize : DefaultAlignment;
        DirectMemoryAlignment = told ? stat.stx_dio_mem_align : otherwise;
        DirectOffsetAlignment = told ? stat.stx_dio_offset_align : otherwise;
    }

    /// <summary>Tries it behind the end, where it changes nothing.</summary>
    private bool CanPunchHoles()
    {
        long end = checked((long)(ReadSize() + DefaultAlignment)) & ~(long)(DefaultAlignment - 1);
        return fallocate(_file.Number, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, end, DefaultAlignment) == 0;
    }

    private bool HasQueueLimit(string name)
    {
        statx stat;
        if (statx(_file.Number, "", AT_EMPTY_PATH, STATX_TYPE, &stat) < 0)
            return false;
        try
        {
            string? disk = Directory.ResolveLinkTarget($"/sys/dev/block/{stat.stx_rdev_major}:{stat.stx_rdev_minor}", returnFinalTarget: true)?.FullName;
            // A partition's limits are those of its disk.
            if (disk != null && !Directory.Exists($"{disk}/queue"))
                disk = System.IO.Path.GetDirectoryName(disk);
            return disk != null && long.TryParse(File.ReadAllText($"{disk}/queue/{name}"), out long limit) && limit > 0;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Not told: not offered.
        }
        return false;
    }
}
