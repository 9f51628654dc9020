using Vmm.Core.Memory;

namespace Vmm.Core.Boot;

/// <summary>
/// The memory above the first megabyte that a kernel and an initramfs may be put in: what the memory map calls RAM and is.
/// </summary>
internal sealed class BootRam
{
    private readonly List<(ulong Start, ulong End)> _ranges = [];

    public BootRam(GuestMemory memory, IReadOnlyList<E820Entry> map)
    {
        Memory = memory;
        foreach (GuestRegion region in memory.Regions)
        {
            foreach (E820Entry entry in map)
            {
                if ((uint)entry.Type != ZeroPage.UsableRam)
                    continue;
                ulong entryEnd = entry.Start + Math.Min(entry.Length, ulong.MaxValue - entry.Start);
                ulong start = Math.Max(Math.Max(region.Start, entry.Start), BootLayout.HighMemoryStart);
                ulong end = Math.Min(region.End, entryEnd);
                if (start < end)
                    _ranges.Add((start, end));
            }
        }
        _ranges.Sort();
        Merge();
    }

    public GuestMemory Memory { get; }

    /// <summary>Whether [start, +length) is wholly in one range of RAM.</summary>
    public bool Contains(ulong start, ulong length)
    {
        foreach ((ulong from, ulong to) in _ranges)
        {
            if (start >= from && start < to && length <= to - start)
                return true;
        }
        return false;
    }

    /// <summary>The lowest place for some bytes, aligned to a power of two, or null.</summary>
    public ulong? FindLowest(ulong length, ulong alignment)
    {
        foreach ((ulong from, ulong to) in _ranges)
        {
            ulong start = (from + (alignment - 1)) & ~(alignment - 1);
            if (start >= from && start < to && length <= to - start)
                return start;
        }
        return null;
    }

    /// <summary>The highest page-aligned place for some bytes that ends at or below a limit and leaves a reserved range alone, or null.</summary>
    public ulong? FindHighest(ulong length, ulong limit, ulong reservedStart, ulong reservedEnd)
    {
        for (int i = _ranges.Count - 1; i >= 0; i--)
        {
            (ulong from, ulong to) = _ranges[i];
            to = Math.Min(to, limit);
            if (from >= to)
                continue;
            if (reservedStart >= reservedEnd || from >= reservedEnd || to <= reservedStart)
            {
                if (HighestIn(from, to, length) is { } free)
                    return free;
                continue;
            }
            if ((HighestIn(reservedEnd, to, length) ?? HighestIn(from, reservedStart, length)) is { } beside)
                return beside;
        }
        return null;
    }

    private static ulong? HighestIn(ulong from, ulong to, ulong length)
    {
        if (to <= from || length > to - from)
            return null;
        ulong start = (to - length) & ~(BootLayout.PageSize - 1);
        return start >= from ? start : null;
    }

    private void Merge()
    {
        for (int i = _ranges.Count - 1; i > 0; i--)
        {
            if (_ranges[i - 1].End < _ranges[i].Start)
                continue;
            // Ranges that touch are one only where the memory behind them is in one piece.
            ulong start = _ranges[i - 1].Start;
            ulong end = Math.Max(_ranges[i - 1].End, _ranges[i].End);
            if (!Memory.Contains(start, end - start))
                continue;
            _ranges[i - 1] = (start, end);
            _ranges.RemoveAt(i);
        }
    }
}
