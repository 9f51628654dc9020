using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Devices.Net;

/// <summary>
/// Receive buffers that were taken from a queue and wait for frames, in the order of the queue, with all their segments in one row:
/// one read fills as many of them as the frame needs, and the others stay for the next. Behind them lies a buffer of our own, so that a
/// frame that is longer than they are is neither lost nor cut without notice.
/// </summary>
internal sealed unsafe class ReceiveBuffers
{
    /// <summary>The most segments of all buffers: UIO_MAXIOV, less one for our own.</summary>
    public const int MaximumSegments = DescriptorChain.MaximumSegments - 1;

    // Twice the most, so that the rows are moved to their beginning rarely.
    private const int Capacity = 2 * DescriptorChain.MaximumSegments;
    private const int OverflowLength = 0x10200;

    private readonly byte[] _overflow = GC.AllocateUninitializedArray<byte>(OverflowLength, pinned: true);
    private readonly GuestSegment[] _segments = new GuestSegment[Capacity];
    private readonly Entry[] _chains = new Entry[Capacity];
    private int _segment, _segmentEnd;
    private int _chain, _chainEnd;

    /// <summary>How many there are.</summary>
    public int Count => _chainEnd - _chain;

    /// <summary>Bytes of all of them.</summary>
    public ulong Length { get; private set; }

    /// <summary>Their segments, and ours behind them.</summary>
    public ReadOnlySpan<GuestSegment> Vector => new(_segments, _segment, _segmentEnd - _segment + 1);

    /// <summary>How many segments there are without ours.</summary>
    public int SegmentCount => _segmentEnd - _segment;

    /// <summary>Only our own segment: for frames that nobody gets.</summary>
    public ReadOnlySpan<GuestSegment> OverflowVector => new(_segments, _segmentEnd, 1);

    /// <summary>The most bytes that a read can give.</summary>
    public ulong LengthWithOverflow => Length + OverflowLength;

    /// <summary>The oldest.</summary>
    public DescriptorChain First => _chains[_chain].Chain;

    /// <summary>Makes an empty row.</summary>
    public ReceiveBuffers() => PutOverflow();

    /// <summary>Appends a buffer; false when there are too many segments already, and then it is to be put back.</summary>
    public bool TryAppend(DescriptorChain chain)
    {
        ReadOnlySpan<GuestSegment> writable = chain.Writable;
        if (writable.Length > MaximumSegments - SegmentCount)
        {
            if (Count > 0)
                return false;
            // As long as chains get: the last segment is left unused.
            writable = writable[..MaximumSegments];
        }
        if (_segmentEnd + writable.Length >= Capacity)
            Compact();
        ulong length = 0;
        foreach (GuestSegment segment in writable)
        {
            _segments[_segmentEnd++] = segment;
            length += segment.Length;
        }
        _chains[_chainEnd++] = new Entry(chain, writable.Length, length);
        Length += length;
        PutOverflow();
        return true;
    }

    /// <summary>How many of the buffers a frame of this length fills, its header included. They are long enough.</summary>
    public int CountFor(ulong length)
    {
        int count = 0;
        while (length > 0)
        {
            ulong room = _chains[_chain + count++].Length;
            length -= Math.Min(length, room);
        }
        return count;
    }

    /// <summary>Gives the oldest buffer back, filled with this many of the bytes that remain; gives how many remain then.</summary>
    public ulong GiveBackFirst(VirtQueue queue, ulong length)
    {
        Entry entry = _chains[_chain];
        ulong written = Math.Min(length, entry.Length);
        _chains[_chain++] = default;
        _segment += entry.Segments;
        Length -= entry.Length;
        queue.GiveBack(entry.Chain, (uint)written);
        if (_chain == _chainEnd)
        {
            _chain = _chainEnd = 0;
            _segment = _segmentEnd = 0;
            PutOverflow();
        }
        return length - written;
    }

    /// <summary>Puts all of them back into the queue, unused.</summary>
    public void PutBack(VirtQueue queue)
    {
        while (_chainEnd > _chain)
        {
            // A broken queue takes nothing back; it begins anew after a reset.
            if (!queue.IsBroken)
                queue.Untake(_chains[_chainEnd - 1].Chain);
            _chains[--_chainEnd] = default;
        }
        _chain = _chainEnd = 0;
        _segment = _segmentEnd = 0;
        Length = 0;
        PutOverflow();
    }

    /// <summary>Copies the first bytes of what was read.</summary>
    public void Peek(Span<byte> destination)
    {
        for (int i = _segment; !destination.IsEmpty; i++)
        {
            int part = (int)Math.Min((ulong)destination.Length, _segments[i].Length);
            // Safe: the segment was checked to be RAM, or is ours.
            new ReadOnlySpan<byte>((void*)_segments[i].Host, part).CopyTo(destination);
            destination = destination[part..];
        }
    }

    /// <summary>
    /// Copies what overflowed into the buffers that were appended since: they are long enough.
    /// </summary>
    /// <param name="firstSegment">How many segments there were when the frame was read.</param>
    /// <param name="length">Bytes that overflowed.</param>
    public void CopyOverflow(int firstSegment, int length)
    {
        ReadOnlySpan<byte> rest = _overflow.AsSpan(0, length);
        for (int i = _segment + firstSegment; !rest.IsEmpty; i++)
        {
            int part = (int)Math.Min((ulong)rest.Length, _segments[i].Length);
            // Safe: the segment was checked to be RAM, which outlives every queue.
            rest[..part].CopyTo(new Span<byte>((void*)_segments[i].Host, part));
            rest = rest[part..];
        }
    }

    private void Compact()
    {
        int segments = SegmentCount;
        int chains = Count;
        Array.Copy(_segments, _segment, _segments, 0, segments);
        Array.Copy(_chains, _chain, _chains, 0, chains);
        Array.Clear(_chains, chains, _chainEnd - chains);
        (_segment, _segmentEnd) = (0, segments);
        (_chain, _chainEnd) = (0, chains);
    }

    private void PutOverflow() =>
        _segments[_segmentEnd] = new GuestSegment((nint)System.Runtime.CompilerServices.Unsafe.AsPointer(ref _overflow[0]), OverflowLength);

    private readonly record struct Entry(DescriptorChain Chain, int Segments, ulong Length);
}
