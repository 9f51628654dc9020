using System.Numerics;
using Vmm.Core.Memory;

namespace Vmm.Virtio.Devices.Balloon;

/// <summary>
/// The pages that are in the balloon, and the host memory behind them. A page counts once, however often a guest names it; what lies
/// outside RAM is counted and passed over.
/// </summary>
internal sealed class BalloonPages
{
    private readonly GuestMemory _memory;
    private readonly BalloonCounters _counters;
    private readonly BalloonRange[] _ranges;
    private BalloonRange _last;

    internal BalloonPages(GuestMemory memory, BalloonCounters counters)
    {
        _memory = memory;
        _counters = counters;
        _ranges = new BalloonRange[memory.Regions.Count];
        for (int i = 0; i < _ranges.Length; i++)
            _ranges[i] = new BalloonRange(memory.Regions[i]);
        _last = _ranges[0];
        counters.SetInflated(0);
    }

    /// <summary>Pages that are in.</summary>
    internal long Count { get; private set; }

    /// <summary>Puts pages in and gives the memory behind them back, neighbours together.</summary>
    /// <param name="pages">As the guest named them; sorted by this.</param>
    internal void Inflate(Span<uint> pages)
    {
        pages.Sort();
        BalloonRange? range = null;
        ulong start = 0;
        ulong end = 0;
        int added = 0;
        foreach (uint page in pages)
        {
            if (RangeOf(page) is not { } found)
            {
                _counters.CountBad();
                continue;
            }
            if (found.Add(page))
                added++;
            else
                _counters.CountRepeated();
            // The same number again, right behind itself.
            if (found == range && page == end - 1)
                continue;
            if (found != range || page != end)
            {
                Discard(range, start, end);
                (range, start) = (found, page);
            }
            end = page + 1UL;
        }
        Discard(range, start, end);
        Count += added;
        _counters.CountIn(added);
        _counters.SetInflated(Count);
    }

    /// <summary>Takes pages out. The host gives them memory when they are touched.</summary>
    internal void Deflate(ReadOnlySpan<uint> pages)
    {
        int removed = 0;
        foreach (uint page in pages)
        {
            if (RangeOf(page) is not { } range)
                _counters.CountBad();
            else if (range.Remove(page))
                removed++;
            else
                _counters.CountRepeated();
        }
        Count -= removed;
        _counters.CountOut(removed);
        _counters.SetInflated(Count);
    }

    /// <summary>First and count of each run of pages that are in, ascending.</summary>
    internal List<uint> Save()
    {
        var runs = new List<uint>();
        foreach (BalloonRange range in _ranges)
            range.Save(runs);
        return runs;
    }

    /// <summary>Puts back what was saved, without touching memory.</summary>
    internal void Restore(IReadOnlyList<uint> runs)
    {
        for (int i = 0; i + 1 < runs.Count; i += 2)
        {
            ulong end = (ulong)runs[i] + runs[i + 1];
            for (ulong page = runs[i]; page < end; page++)
            {
                if (RangeOf(page) is { } range && range.Add(page))
                    Count++;
            }
        }
        _counters.SetInflated(Count);
    }

    private BalloonRange? RangeOf(ulong page)
    {
        if (_last.Contains(page))
            return _last;
        foreach (BalloonRange range in _ranges)
        {
            if (range.Contains(page))
                return _last = range;
        }
        return null;
    }

    private void Discard(BalloonRange? range, ulong start, ulong end)
    {
        if (range == null)
            return;
        if (!range.IsHuge)
        {
            Discard(start << BalloonProtocol.PageShift, end - start, BalloonProtocol.PageSize);
            return;
        }
        // The host's page can only go as a whole, when the last of the guest's pages in it has come.
        uint last = range.BackingOf(end - 1);
        uint whole = 0;
        for (uint backing = range.BackingOf(start); backing <= last; backing++)
        {
            if (range.IsWhole(backing))
            {
                whole++;
                continue;
            }
            Discard(range.AddressOf(backing - whole), whole, range.Region.PageSize);
            whole = 0;
        }
        Discard(range.AddressOf(last + 1 - whole), whole, range.Region.PageSize);
    }

    private void Discard(ulong address, ulong pages, ulong pageSize)
    {
        if (pages == 0)
            return;
        if (!_memory.TryDiscard(address, pages * pageSize, out ulong discarded))
            _counters.CountFailure();
        _counters.CountDiscarded(discarded);
    }
}
