using System.Numerics;
using Vmm.Core.Memory;

namespace Vmm.Virtio.Devices.Balloon;

/// <summary>Which pages of one range of RAM are in the balloon: a bit each, and a count for each huge page of the host's.</summary>
internal sealed class BalloonRange
{
    private readonly uint _length;
    private readonly int _backingShift;
    private readonly uint _lead;
    private ulong[] _bits = [];
    private int[] _backing = [];

    internal BalloonRange(GuestRegion region)
    {
        Region = region;
        First = region.Start >> BalloonProtocol.PageShift;
        // Above 2^32 pages (16 TiB) a balloon has no numbers.
        _length = (uint)Math.Min(region.Length >> BalloonProtocol.PageShift, uint.MaxValue);
        _backingShift = BitOperations.Log2(region.PageSize) - BalloonProtocol.PageShift;
        _lead = (uint)(((ulong)region.HostAddress & (region.PageSize - 1)) >> BalloonProtocol.PageShift);
    }

    internal GuestRegion Region { get; }

    /// <summary>Number of its first page.</summary>
    internal ulong First { get; }

    /// <summary>Whether the host's pages are larger than the balloon's.</summary>
    internal bool IsHuge => _backingShift > 0;

    internal bool Contains(ulong page) => page >= First && page - First < _length;

    /// <summary>Puts a page of the range in; false when it is in.</summary>
    internal bool Add(ulong page)
    {
        if (_bits.Length == 0)
        {
            // Once, and only for a guest that uses its balloon: 32 KiB for each GiB.
            _bits = new ulong[(_length + 63UL) / 64];
            if (IsHuge)
                _backing = new int[BackingOf(First + _length - 1) + 1];
        }
        uint index = (uint)(page - First);
        ulong bit = 1UL << (int)(index % 64);
        if ((_bits[index / 64] & bit) != 0)
            return false;
        _bits[index / 64] |= bit;
        if (IsHuge)
            _backing[BackingOf(page)]++;
        return true;
    }

    /// <summary>Takes a page of the range out; false when it is out.</summary>
    internal bool Remove(ulong page)
    {
        uint index = (uint)(page - First);
        ulong bit = 1UL << (int)(index % 64);
        if (_bits.Length == 0 || (_bits[index / 64] & bit) == 0)
            return false;
        _bits[index / 64] &= ~bit;
        if (IsHuge)
            _backing[BackingOf(page)]--;
        return true;
    }

    /// <summary>Which of the host's pages a page lies in, from 0.</summary>
    internal uint BackingOf(ulong page) => (uint)((page - First + _lead) >> _backingShift);

    /// <summary>Whether all of a page of the host's is in the balloon. One that the range has only a part of never is.</summary>
    internal bool IsWhole(uint backing) => _backing[backing] == 1 << _backingShift;

    /// <summary>The guest's address of a page of the host's.</summary>
    internal ulong AddressOf(uint backing) => Region.Start + ((((ulong)backing << _backingShift) - _lead) << BalloonProtocol.PageShift);

    /// <summary>Appends first and count of each run of pages that are in.</summary>
    internal void Save(List<uint> runs)
    {
        uint start = 0;
        uint count = 0;
        for (uint index = 0; index < _length && _bits.Length > 0; index++)
        {
            ulong word = _bits[index / 64];
            if (word == 0 && index % 64 == 0 && count == 0)
            {
                index += 63;
                continue;
            }
            if ((word >> (int)(index % 64) & 1) != 0)
            {
                if (count++ == 0)
                    start = index;
            }
            else if (count > 0)
            {
                Append(runs, start, count);
                count = 0;
            }
        }
        if (count > 0)
            Append(runs, start, count);
    }

    private void Append(List<uint> runs, uint start, uint count)
    {
        runs.Add((uint)(First + start));
        runs.Add(count);
    }
}
