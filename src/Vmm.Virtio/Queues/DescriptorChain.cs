using System.Runtime.InteropServices;
using Vmm.Core.Memory;

namespace Vmm.Virtio.Queues;

/// <summary>
/// One buffer that a driver made available: first what the device may read, then what it may write (VIRTIO 1.3 §2.7.4.2). The queue
/// owns and reuses these objects: one is valid from <see cref="VirtQueue.TryTake"/> until <see cref="VirtQueue.GiveBack"/>.
/// </summary>
/// <remarks>Every descriptor was read once and checked when the chain was taken; a guest that changes the ring changes nothing here.</remarks>
public sealed unsafe class DescriptorChain
{
    /// <summary>
    /// The most segments of one chain, indirect descriptors included: the kernel's UIO_MAXIOV, so that a chain always goes to it in one
    /// call. A driver that makes longer ones broke the rule of its queue's size long before (VIRTIO 1.3 §2.7.5.3.1).
    /// </summary>
    public const int MaximumSegments = 1024;

    private const int FirstCapacity = 16;

    private GuestSegment* _segments;
    private int _capacity;
    private int _count;

    internal DescriptorChain(int slot) => Slot = slot;

    /// <summary>Frees the list of segments.</summary>
    ~DescriptorChain()
    {
        NativeMemory.Free(_segments);
        if (_capacity > 0)
            GC.RemoveMemoryPressure((long)_capacity * sizeof(GuestSegment));
    }

    /// <summary>This object's place among the queue's, from 0 to the queue's size - 1: an index for what a device keeps for each request.</summary>
    public int Slot { get; }

    /// <summary>The head's index, or the packed ring's buffer id.</summary>
    public ushort Id { get; internal set; }

    /// <summary>Entries of the ring that it takes: 1 for a split queue; the length of the chain in a packed ring (1 for an indirect one).</summary>
    internal ushort RingEntries { get; set; }

    /// <summary>Its place in the order of being taken.</summary>
    internal ulong Sequence { get; set; }

    /// <summary>Who has it.</summary>
    internal ChainPhase Phase { get; set; }

    /// <summary>Bytes written into it, while it waits for its turn to be given back.</summary>
    internal uint Written { get; set; }

    /// <summary>Bytes that the device may read.</summary>
    public ulong ReadableLength { get; private set; }

    /// <summary>Bytes that the device may write.</summary>
    public ulong WritableLength { get; private set; }

    /// <summary>How many segments are readable; they come first.</summary>
    public int ReadableCount { get; private set; }

    /// <summary>What the device may read.</summary>
    public ReadOnlySpan<GuestSegment> Readable => new(_segments, ReadableCount);

    /// <summary>What the device may write.</summary>
    public ReadOnlySpan<GuestSegment> Writable => new(_segments + ReadableCount, _count - ReadableCount);

    /// <summary>
    /// Whether pages of it can vanish while the device has it, so that nothing of it may be dereferenced: the kernel is handed it, or it is
    /// copied by the members here.
    /// </summary>
    internal bool MayVanish { get; set; }

    /// <summary>The segments as <c>struct iovec[]</c>; stays where it is until the chain is given back.</summary>
    internal GuestSegment* Segments => _segments;

    /// <summary>Copies out of the readable part; gives how many bytes there were, at most the buffer's.</summary>
    public int Read(ulong offset, Span<byte> destination) => Copy(Readable, offset, destination, default);

    /// <summary>Copies into the writable part; gives how many bytes there was room for.</summary>
    public int Write(ulong offset, ReadOnlySpan<byte> source) => Copy(Writable, offset, default, source);

    /// <summary>Reads a value from the readable part; false where it is too short.</summary>
    public bool TryRead<T>(ulong offset, out T value) where T : unmanaged
    {
        T whole = default;
        bool read = Read(offset, MemoryMarshal.AsBytes(new Span<T>(ref whole))) == sizeof(T);
        value = read ? whole : default;
        return read;
    }

    /// <summary>Writes a value into the writable part; false where it is too short.</summary>
    public bool TryWrite<T>(ulong offset, T value) where T : unmanaged =>
        Write(offset, MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value))) == sizeof(T);

    /// <summary>
    /// The segments of [offset, +length) of the readable or writable part, appended to an array of the caller's; -1 where they do not fit in it or the part is shorter.
    /// </summary>
    public int Slice(bool writable, ulong offset, ulong length, Span<GuestSegment> destination)
    {
        int count = 0;
        foreach (GuestSegment segment in writable ? Writable : Readable)
        {
            if (length == 0)
                break;
            if (offset >= segment.Length)
            {
                offset -= segment.Length;
                continue;
            }
            if (count == destination.Length)
                return -1;
            nuint part = (nuint)Math.Min(segment.Length - offset, length);
            destination[count++] = new GuestSegment(segment.Host + (nint)offset, part);
            length -= part;
            offset = 0;
        }
        return length == 0 ? count : -1;
    }

    /// <summary>Empties it for the next buffer.</summary>
    internal void Clear()
    {
        _count = 0;
        ReadableCount = 0;
        ReadableLength = 0;
        WritableLength = 0;
        MayVanish = false;
    }

    /// <summary>Appends a checked segment; false when there are too many, or a readable one follows a writable one.</summary>
    internal bool TryAppend(GuestSegment segment, bool writable)
    {
        if (_count == MaximumSegments || (!writable && _count != ReadableCount))
            return false;
        if (_count == _capacity)
            Grow();
        _segments[_count++] = segment;
        if (writable)
        {
            WritableLength += segment.Length;
        }
        else
        {
            ReadableCount++;
            ReadableLength += segment.Length;
        }
        return true;
    }

    private void Grow()
    {
        int before = _capacity;
        _capacity = Math.Max(FirstCapacity, before * 2);
        // Safe: only the finalizer frees it, and nobody keeps the address of a chain that is being filled.
        _segments = (GuestSegment*)NativeMemory.Realloc(_segments, (nuint)_capacity * (nuint)sizeof(GuestSegment));
        // The lists are most of a chain: without it, a guest that resets its queues over and over grows them faster than they are collected.
        GC.AddMemoryPressure((long)(_capacity - before) * sizeof(GuestSegment));
    }

    private int Copy(ReadOnlySpan<GuestSegment> segments, ulong offset, Span<byte> destination, ReadOnlySpan<byte> source)
    {
        int done = 0;
        int wanted = destination.Length + source.Length;
        foreach (GuestSegment segment in segments)
        {
            if (done == wanted)
                break;
            if (offset >= segment.Length)
            {
                offset -= segment.Length;
                continue;
            }
            int part = (int)Math.Min((ulong)(wanted - done), segment.Length - offset);
            var at = (byte*)segment.Host + offset;
            if (MayVanish)
            {
                int copied = destination.IsEmpty ? FaultableMemory.Write(at, source.Slice(done, part)) : FaultableMemory.Read(at, destination.Slice(done, part));
                if (copied < part)
                    return done + copied;
            }
            else
            {
                // Safe: the part lies inside a segment that was checked to be RAM, which outlives every queue.
                var guest = new Span<byte>(at, part);
                if (destination.IsEmpty)
                    source.Slice(done, part).CopyTo(guest);
                else
                    guest.CopyTo(destination[done..]);
            }
            done += part;
            offset = 0;
        }
        return done;
    }
}
