using System.Runtime.CompilerServices;
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

    /// <summary>Bytes of our own buffer: more than the longest frame.</summary>
    public const int OverflowLength = 0x10200;

    private readonly byte[] _overflow = GC.AllocateUninitializedArray<byte>(OverflowLength, pinned: true);
    private readonly GuestSegment[] _segments = new GuestSegment[Capacity];
    private readonly Entry[] _chains = new Entry[Capacity];
    private int _segment, _segmentEnd;
    private int _chain, _chainEnd;

    /// <summary>How many there are.</summary>
    public int Count => _chainEnd - _chain;

    /// <summary>Bytes of all of them.</summary>
    public ulong Length { get; private set; }

    /// <summary>How many of the segments the last read was given, before ours.</summary>
    public int ReadSegments { get; private set; }

    /// <summary>Bytes of those.</summary>
    public ulong ReadLength { get; private set; }

    // Safe: the array is pinned and lives as long as this object.
    private GuestSegment OverflowSegment => new((nint)Unsafe.AsPointer(ref _overflow[0]), OverflowLength);

    private int SegmentCount => _segmentEnd - _segment;

    /// <summary>The oldest.</summary>
    public DescriptorChain First => _chains[_chain].Chain;

    /// <summary>
    /// Reads a frame into the oldest buffers. The kernel's time grows with the segments that it is given, so those beyond what is
    /// expected are left out; what exceeds them is in our own.
    /// </summary>
    /// <param name="port">Where from.</param>
    /// <param name="expected">Bytes, at least a header and an address.</param>
    /// <returns>As the port's; below <see cref="ReadLength"/> + <see cref="OverflowLength"/> for a frame that is whole.</returns>
    public nint Receive(INetPort port, ulong expected)
    {
        int count = 0;
        ulong length = 0;
        int all = SegmentCount;
        while (count < all && length < expected)
            length += _segments[_segment + count++].Length;
        ReadSegments = count;
        ReadLength = length;
        ref GuestSegment next = ref _segments[_segment + count];
        GuestSegment saved = next;
        next = OverflowSegment;
        nint got = port.Receive(new ReadOnlySpan<GuestSegment>(_segments, _segment, count + 1));
        next = saved;
        return got;
    }

    /// <summary>Takes a frame that nobody gets.</summary>
    public nint Discard(INetPort port)
    {
        GuestSegment overflow = OverflowSegment;
        return port.Receive(new ReadOnlySpan<GuestSegment>(in overflow));
    }

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
        // One more place, where a read puts ours.
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
        }
        return length - written;
    }

    /// <summary>Puts all of them back into the queue, unused.</summary>
    public void PutBack(VirtQueue queue)
    {
        while (_chainEnd > _chain)
        {
            queue.Untake(_chains[--_chainEnd].Chain);
            _chains[_chainEnd] = default;
        }
        _chain = _chainEnd = 0;
        _segment = _segmentEnd = 0;
        Length = 0;
    }

    /// <summary>Copies the first bytes of what was read: at most as many as were expected.</summary>
    public void Peek(Span<byte> destination)
    {
        for (int i = 0; !destination.IsEmpty; i++)
        {
            GuestSegment segment = i < ReadSegments ? _segments[_segment + i] : OverflowSegment;
            int part = (int)Math.Min((ulong)destination.Length, segment.Length);
            // Safe: the segment was checked to be RAM, or is ours.
            new ReadOnlySpan<byte>((void*)segment.Host, part).CopyTo(destination);
            destination = destination[part..];
        }
    }

    /// <summary>Copies what overflowed in the last read into the segments that follow those of the read; they are long enough.</summary>
    /// <param name="length">Bytes that overflowed.</param>
    public void CopyOverflow(int length)
    {
        ReadOnlySpan<byte> rest = _overflow.AsSpan(0, length);
        for (int i = _segment + ReadSegments; !rest.IsEmpty; i++)
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

    private readonly record struct Entry(DescriptorChain Chain, int Segments, ulong Length);
}
