using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Memory;

/// <summary>How guest RAM is backed.</summary>
/// <param name="Shared">A memfd, mapped MAP_SHARED, so that other processes (vhost-user back-ends) can map it; else anonymous memory.</param>
/// <param name="HugePages">Explicit huge pages (hugetlbfs), which the host must have reserved.</param>
/// <param name="HugePageSize">Bytes of one huge page, a power of two (2 MiB or 1 GiB on x86); 0 for the host's default.</param>
/// <param name="Prefault">Touch all of it before the guest starts.</param>
public readonly record struct GuestRamOptions(bool Shared = false, bool HugePages = false, ulong HugePageSize = 0, bool Prefault = false);

/// <summary>
/// Guest RAM: one host mapping, cut into the guest-physical ranges of the layout, and a second one for memory that is plugged in while the
/// guest runs. Owns the mappings.
/// </summary>
public sealed unsafe class GuestRam : IDisposable
{
    private const uint Seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

    private readonly List<(HostMapping Mapping, FileDescriptor? File)> _parts = [];

    private GuestRam()
    {
    }

    /// <summary>Checked access to it, and to what may be plugged in.</summary>
    public GuestMemory Memory { get; private set; } = null!;

    /// <summary>The region that memory is plugged into; part of <see cref="Memory"/>. Null where none was asked for.</summary>
    public GuestRegion? Hotplug { get; private set; }

    /// <summary>Allocates RAM for disjoint guest-physical ranges.</summary>
    /// <param name="ranges">Start and length of each, in bytes, multiples of the page size.</param>
    /// <param name="options">How to back it.</param>
    /// <param name="hotplug">
    /// Where memory can be plugged in; empty for nowhere. It is reserved, in the same way but not touched and without a promise of the
    /// host that the memory is there, since that would take it from others before anybody wants it.
    /// </param>
    /// <exception cref="VmmException">The host cannot give that much, or not in that way.</exception>
    public static GuestRam Allocate(IReadOnlyList<(ulong Start, ulong Length)> ranges, GuestRamOptions options, AddressRange hotplug = default)
    {
        // A huge page that the pool lacks is a SIGBUS for whoever touches it, and with a reservation the pool would lack them at once.
        if (!hotplug.IsEmpty && options.HugePages)
            throw VmmException.Configuration("Cannot plug memory into a guest with hugepages=on: leave hotplug_size out, or use hugepages=off.");
        var ram = new GuestRam();
        try
        {
            List<GuestRegion> regions = ram.Add(ranges, options);
            ram.Memory = new GuestMemory(regions);
            if (!hotplug.IsEmpty)
            {
                List<GuestRegion> plugged = ram.Add([(hotplug.Start, hotplug.Length)], options with { Prefault = false });
                ram.Hotplug = plugged[0];
                ram.Memory = new GuestMemory([.. regions, plugged[0]]);
            }
            return ram;
        }
        catch
        {
            ram.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach ((HostMapping mapping, FileDescriptor? file) in _parts)
        {
            mapping.Dispose();
            file?.Dispose();
        }
    }

    private List<GuestRegion> Add(IReadOnlyList<(ulong Start, ulong Length)> ranges, GuestRamOptions options)
    {
        ulong size = 0;
        foreach ((ulong _, ulong length) in ranges)
            size += length;
        ulong page = !options.HugePages ? GuestRegion.SmallPage : options.HugePageSize > 0 ? options.HugePageSize : DefaultHugePageSize();
        // Whole pages: a file of huge pages is refused any other size, and munmap would give nothing back.
        ulong mapped = options.HugePages ? (size + page - 1) & ~(page - 1) : size;
        FileDescriptor? file = options.Shared ? CreateFile(mapped, options) : null;
        int flags = file != null ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
        flags |= options.HugePages ? HugeFlags(options, MAP_HUGETLB) : MAP_NORESERVE;
        if (options.Prefault)
            flags |= MAP_POPULATE;
        HostMapping? mapping = HostMapping.TryMap((nuint)mapped, PROT_READ | PROT_WRITE, file != null ? flags & ~MAP_HUGETLB & 0x3ffffff : flags, file?.Number ?? -1);
        if (mapping == null)
        {
            int error = errno;
            file?.Dispose();
            throw Refused(size, options, error);
        }
        _parts.Add((mapping, file));
        // A core dump of the program should not contain the guest.
        _ = madvise(mapping.Address, mapping.Length, MADV_DONTDUMP);
        return Cut(ranges, mapping, file, page);
    }

    private static List<GuestRegion> Cut(IReadOnlyList<(ulong Start, ulong Length)> ranges, HostMapping mapping, FileDescriptor? file, ulong page)
    {
        ulong offset = 0;
        var regions = new List<GuestRegion>(ranges.Count);
        foreach ((ulong start, ulong length) in ranges)
        {
            regions.Add(new GuestRegion(start, length, (nint)(mapping.Address + offset), file?.Number ?? -1, offset, page));
            offset += length;
        }
        return regions;
    }

    private static FileDescriptor CreateFile(ulong size, GuestRamOptions options)
    {
        uint flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (options.HugePages ? (uint)HugeFlags(options, (int)MFD_HUGETLB) : 0);
        int number = memfd_create("guest-ram", flags);
        if (number < 0)
            throw Refused(size, options, errno);
        var file = new FileDescriptor(number);
        // Sealed, so that nobody who is handed it can truncate it under us.
        if (ftruncate(number, (long)size) >= 0 && fcntl(number, F_ADD_SEALS, Seals) >= 0)
            return file;
        int error = errno;
        file.Dispose();
        throw Refused(size, options, error);
    }

    private static int HugeFlags(GuestRamOptions options, int hugetlb) =>
        hugetlb | (options.HugePageSize == 0 ? 0 : System.Numerics.BitOperations.Log2(options.HugePageSize) << MAP_HUGE_SHIFT);

    /// <summary>Bytes, from /proc/meminfo ("Hugepagesize:    2048 kB"); x86's 2 MiB where it does not tell.</summary>
    private static ulong DefaultHugePageSize()
    {
        const string key = "Hugepagesize:";
        try
        {
            foreach (string line in File.ReadLines("/proc/meminfo"))
            {
                if (line.StartsWith(key, StringComparison.Ordinal) &&
                    ulong.TryParse(line.AsSpan(key.Length).Trim().TrimEnd("kB ").TrimEnd(), out ulong kib) && System.Numerics.BitOperations.IsPow2(kib))
                    return kib << 10;
            }
        }
        catch (IOException)
        {
            // No /proc: the usual size.
        }
        return 2 << 20;
    }

    private static VmmException Refused(ulong size, GuestRamOptions options, int error)
    {
        string what = $"Cannot allocate {size >> 20} MiB of guest memory";
        if (options.HugePages)
        {
            string pages = options.HugePageSize == 0 ? "huge pages" : $"huge pages of {options.HugePageSize >> 20} MiB";
            return VmmException.Host($"{what} in {pages}: {strerror(error)}; reserve enough of them (/proc/sys/vm/nr_hugepages) or use hugepages=off.");
        }
        return VmmException.Host($"{what}: {strerror(error)}; the host cannot give that much address space or memory, ask for less (--memory size=).");
    }
}
