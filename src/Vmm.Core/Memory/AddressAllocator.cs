namespace Vmm.Core.Memory;

/// <summary>
/// Hands out aligned, disjoint pieces of one window of addresses: the lowest that fits, so the same requests in the same order
/// always give the same addresses. Pure bookkeeping; its owner does the locking.
/// </summary>
public sealed class AddressAllocator
{
    // Sorted by start, disjoint, none empty. Windows hold tens of pieces: a list is smaller and faster than a tree.
    private readonly List<AddressRange> _taken = [];

    /// <summary>Makes an allocator whose whole window is free.</summary>
    /// <param name="window">May be empty: then every request is refused.</param>
    /// <exception cref="ArgumentException">The window wraps around the 64-bit address space.</exception>
    public AddressAllocator(AddressRange window)
    {
        if (!window.IsEmpty && window.Last < window.Start)
            throw new ArgumentException($"The window at 0x{window.Start:x} of 0x{window.Length:x} bytes wraps around.", nameof(window));
        Window = window;
    }

    /// <summary>All there is to hand out.</summary>
    public AddressRange Window { get; }

    /// <summary>What is handed out, lowest first.</summary>
    public IReadOnlyList<AddressRange> Allocations => _taken;

    /// <summary>Bytes not handed out, wherever they are.</summary>
    public ulong FreeBytes
    {
        get
        {
            ulong free = Window.Length;
            foreach (AddressRange range in _taken)
                free -= range.Length;
            return free;
        }
    }

    /// <summary>Takes the lowest free piece.</summary>
    /// <param name="size">Bytes; 0 is refused.</param>
    /// <param name="alignment">A power of two that the address will be a multiple of.</param>
    /// <param name="address">Where the piece is.</param>
    /// <returns><see langword="false"/>, and nothing changed, where no free piece is large enough.</returns>
    /// <exception cref="ArgumentException">The alignment is not a power of two.</exception>
    public bool TryAllocate(ulong size, ulong alignment, out ulong address)
    {
        if (!ulong.IsPow2(alignment))
            throw new ArgumentException($"The alignment 0x{alignment:x} is not a power of two.", nameof(alignment));
        address = 0;
        if (size == 0 || size > Window.Length)
            return false;
        ulong from = Window.Start;
        for (int i = 0; i <= _taken.Count; i++)
        {
            // The gap before allocation i, or after the last one.
            ulong last = i < _taken.Count ? unchecked(_taken[i].Start - 1) : Window.Last;
            bool hasGap = i < _taken.Count ? _taken[i].Start > from : last >= from;
            if (hasGap && TryAlignUp(from, alignment, out ulong start) && start <= last && last - start >= size - 1)
            {
                _taken.Insert(i, new AddressRange(start, size));
                address = start;
                return true;
            }
            if (i < _taken.Count)
            {
                if (_taken[i].Last == Window.Last)
                    return false;
                from = _taken[i].End;
            }
        }
        return false;
    }

    /// <summary>Takes [<paramref name="address"/>, +<paramref name="size"/>), at exactly that place.</summary>
    /// <returns><see langword="false"/>, and nothing changed, where it is empty, outside the window, or partly taken.</returns>
    public bool TryAllocateAt(ulong address, ulong size)
    {
        if (size == 0 || !Window.Contains(address, size))
            return false;
        AddressRange wanted = new(address, size);
        int at = 0;
        while (at < _taken.Count && _taken[at].Start < address)
            at++;
        if ((at > 0 && _taken[at - 1].Overlaps(wanted)) || (at < _taken.Count && _taken[at].Overlaps(wanted)))
            return false;
        _taken.Insert(at, wanted);
        return true;
    }

    /// <summary>Gives back the piece that starts at <paramref name="address"/>.</summary>
    /// <returns><see langword="false"/> when no piece starts there.</returns>
    public bool TryFree(ulong address)
    {
        for (int i = 0; i < _taken.Count; i++)
        {
            if (_taken[i].Start == address)
            {
                _taken.RemoveAt(i);
                return true;
            }
        }
        return false;
    }

    private static bool TryAlignUp(ulong value, ulong alignment, out ulong aligned)
    {
        aligned = unchecked(value + (alignment - 1)) & ~(alignment - 1);
        return aligned >= value;
    }
}
