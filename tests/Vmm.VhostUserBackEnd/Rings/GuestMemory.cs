using Vmm.Core.Interop;
using Vmm.VhostUserBackEnd.Protocol;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd.Rings;

/// <summary>A region of guest memory, mapped from the descriptor that came with its description.</summary>
public sealed unsafe class GuestRegion
{
    private readonly HostMapping _mapping;

    private GuestRegion(MemoryRegionDescription description, HostMapping mapping)
    {
        Description = description;
        _mapping = mapping;
    }

    public MemoryRegionDescription Description { get; }

    internal byte* Start => _mapping.Address + Description.MmapOffset;

    /// <summary>Maps a region from offset 0 to its end, as passt and libvhost-user do; null where the host or the numbers forbid it.</summary>
    internal static GuestRegion? TryMap(MemoryRegionDescription description, FileDescriptor file)
    {
        ulong length = description.Size + description.MmapOffset;
        if (description.Size == 0 || length < description.Size || length > long.MaxValue)
            return null;
        statx status;
        if (statx(file.Number, "", AT_EMPTY_PATH, STATX_TYPE | STATX_SIZE, &status) != 0)
            return null;
        // A page beyond a file's end would be a SIGBUS later.
        if ((status.stx_mode & S_IFMT) == S_IFREG && status.stx_size < length)
            return null;
        HostMapping? mapping = HostMapping.TryMap((nuint)length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file.Number);
        return mapping == null ? null : new GuestRegion(description, mapping);
    }

    internal void Hold()
    {
        bool held = false;
        _mapping.DangerousAddRef(ref held);
    }

    internal void LetGo() => _mapping.DangerousRelease();

    /// <summary>The pages go when the last table that has the region is let go.</summary>
    internal void Close() => _mapping.Dispose();
}

/// <summary>
/// The memory table of one moment. It does not change: a message that changes the memory makes another one. Whoever uses pointers into it holds
/// it meanwhile, so that no page is taken away under a request.
/// </summary>
public sealed unsafe class MemoryTable
{
    private readonly GuestRegion[] _regions;

    private MemoryTable(GuestRegion[] regions) => _regions = regions;

    public static MemoryTable Empty { get; } = new([]);

    public IReadOnlyList<GuestRegion> Regions => _regions;

    internal static MemoryTable Of(IEnumerable<GuestRegion> regions) => new([.. regions]);

    internal void Hold()
    {
        foreach (GuestRegion region in _regions)
            region.Hold();
    }

    internal void LetGo()
    {
        foreach (GuestRegion region in _regions)
            region.LetGo();
    }

    /// <summary>The bytes at a guest physical address; null where they are not all in one region.</summary>
    internal byte* FromGuest(ulong address, ulong length)
    {
        foreach (GuestRegion region in _regions)
        {
            if (Contains(region.Description.GuestAddress, region.Description.Size, address, length))
                return region.Start + (address - region.Description.GuestAddress);
        }
        return null;
    }

    /// <summary>The bytes at an address of the front-end's, which is what ring addresses are.</summary>
    internal byte* FromUser(ulong address, ulong length)
    {
        foreach (GuestRegion region in _regions)
        {
            if (Contains(region.Description.UserAddress, region.Description.Size, address, length))
                return region.Start + (address - region.Description.UserAddress);
        }
        return null;
    }

    /// <summary>Reads guest memory, for tests; false where it is not all in one region.</summary>
    public bool TryRead(ulong guestAddress, Span<byte> data)
    {
        byte* from = FromGuest(guestAddress, (ulong)data.Length);
        if (from == null)
            return false;
        new ReadOnlySpan<byte>(from, data.Length).CopyTo(data);
        return true;
    }

    private static bool Contains(ulong start, ulong size, ulong address, ulong length) =>
        address >= start && address - start <= size && length <= size - (address - start);
}
