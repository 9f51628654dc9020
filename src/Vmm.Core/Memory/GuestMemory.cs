using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Vmm.Core.Memory;

/// <summary>
/// Checked access to guest-physical RAM. Addresses and lengths may come from a guest: every access is checked against the RAM
/// ranges, and the Try methods answer false instead of throwing. Values are little-endian, as x86's are.
/// </summary>
public sealed unsafe partial class GuestMemory
{
    private readonly GuestRegion[] _regions;

    /// <summary>Makes the view of some mapped RAM ranges.</summary>
    /// <param name="regions">Disjoint; any order.</param>
    public GuestMemory(IEnumerable<GuestRegion> regions)
    {
        _regions = [.. regions.OrderBy(r => r.Start)];
        for (int i = 1; i < _regions.Length; i++)
        {
            if (_regions[i].Start < _regions[i - 1].End)
                throw new ArgumentException("RAM regions overlap.", nameof(regions));
        }
    }

    /// <summary>The RAM ranges, lowest first.</summary>
    public IReadOnlyList<GuestRegion> Regions => _regions;

    /// <summary>All RAM, in bytes.</summary>
    public ulong Size
    {
        get
        {
            ulong sum = 0;
            foreach (GuestRegion region in _regions)
                sum += region.Length;
            return sum;
        }
    }

    /// <summary>Whether [address, +length) is wholly inside one RAM range.</summary>
    public bool Contains(ulong address, ulong length) => Find(address, length) != null;

    /// <summary>
    /// The bytes of [address, +length) in place, without a copy; false where they are not wholly inside one RAM range. The span
    /// is shared with a running guest: read each value once, then use what was read.
    /// </summary>
    public bool TryGetSpan(ulong address, int length, out Span<byte> span)
    {
        byte* host = length < 0 ? null : Find(address, (ulong)length);
        // Safe: Find has checked that the whole range lies in one live mapping.
        span = host == null ? default : new Span<byte>(host, length);
        return host != null;
    }

    /// <summary>Copies out of RAM, also across ranges that touch; false (with nothing promised of the buffer) where a byte is not RAM.</summary>
    public bool TryRead(ulong address, Span<byte> destination)
    {
        while (!destination.IsEmpty)
        {
            int chunk = ChunkAt(address, destination.Length);
            if (chunk == 0 || !TryGetSpan(address, chunk, out Span<byte> source))
                return false;
            source.CopyTo(destination);
            destination = destination[chunk..];
            address += (ulong)chunk;
        }
        return true;
    }

    /// <summary>Copies into RAM, also across ranges that touch; false where a byte is not RAM (earlier bytes may be written).</summary>
    public bool TryWrite(ulong address, ReadOnlySpan<byte> source)
    {
        while (!source.IsEmpty)
        {
            int chunk = ChunkAt(address, source.Length);
            if (chunk == 0 || !TryGetSpan(address, chunk, out Span<byte> destination))
                return false;
            source[..chunk].CopyTo(destination);
            source = source[chunk..];
            address += (ulong)chunk;
        }
        return true;
    }

    /// <summary>Reads a value once; false where it is not wholly RAM.</summary>
    public bool TryRead<T>(ulong address, out T value) where T : unmanaged
    {
        byte* host = Find(address, (ulong)sizeof(T));
        if (host != null)
        {
            value = Unsafe.ReadUnaligned<T>(host);
            return true;
        }
        // Rare: it may lie across two ranges that touch.
        T parts = default;
        bool whole = TryRead(address, MemoryMarshal.AsBytes(new Span<T>(ref parts)));
        value = whole ? parts : default;
        return whole;
    }

    /// <summary>Writes a value; false where it is not wholly RAM (earlier bytes may be written).</summary>
    public bool TryWrite<T>(ulong address, T value) where T : unmanaged
    {
        byte* host = Find(address, (ulong)sizeof(T));
        if (host == null)
            return TryWrite(address, MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)));
        Unsafe.WriteUnaligned(host, value);
        return true;
    }

    /// <summary>Copies into RAM at an address that the program itself chose.</summary>
    /// <exception cref="VmmException">It is not all RAM: there is too little memory for what must be loaded.</exception>
    public void Write(ulong address, ReadOnlySpan<byte> source)
    {
        if (!TryWrite(address, source))
            throw VmmException.Configuration($"Cannot load {source.Length} bytes at guest address 0x{address:x}: there is no memory there; give the guest more (--memory size=).");
    }

    /// <summary>Writes a value at an address that the program itself chose.</summary>
    /// <exception cref="VmmException">It is not RAM.</exception>
    public void Write<T>(ulong address, T value) where T : unmanaged =>
        Write(address, MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)));

    /// <summary>
    /// The RAM range that an address lies in, for those that keep host pointers; null where it is not RAM. Ranges stay where they are for
    /// as long as this view lives.
    /// </summary>
    internal GuestRegion? RegionAt(ulong address)
    {
        foreach (GuestRegion region in _regions)
        {
            if (address - region.Start < region.Length)
                return region;
        }
        return null;
    }

    /// <summary>
    /// Where [address, +length) is mapped in this process; null where it is not wholly inside one RAM range, or not aligned.
    /// </summary>
    /// <param name="address">Guest-physical.</param>
    /// <param name="length">Bytes.</param>
    /// <param name="alignment">A power of two, at most the page size.</param>
    internal byte* Pointer(ulong address, ulong length, ulong alignment) => (address & (alignment - 1)) == 0 ? Find(address, length) : null;

    private int ChunkAt(ulong address, int wanted)
    {
        foreach (GuestRegion region in _regions)
        {
            if (address >= region.Start && address < region.End)
                return (int)Math.Min((ulong)wanted, region.End - address);
        }
        return 0;
    }

    private byte* Find(ulong address, ulong length)
    {
        foreach (GuestRegion region in _regions)
        {
            if (address >= region.Start && address - region.Start <= region.Length && length <= region.Length - (address - region.Start))
                return region.Host + (address - region.Start);
        }
        return null;
    }
}
