using System.Diagnostics.CodeAnalysis;
using System.Numerics;
using Vmm.Core.Memory;

namespace Vmm.Virtio.Queues;

/// <summary>A split virtqueue (VIRTIO 1.3 §2.7): a descriptor table, an available ring of the driver's and a used ring of the device's.</summary>
internal sealed unsafe class SplitQueue : RingQueue
{
    /// <summary>VIRTQ_AVAIL_F_NO_INTERRUPT (§2.7.6).</summary>
    private const ushort AvailNoInterrupt = 1;

    /// <summary>VIRTQ_USED_F_NO_NOTIFY (§2.7.8).</summary>
    private const ushort UsedNoNotify = 1;

    private const ulong DescriptorAlignment = 16, AvailableAlignment = 2, UsedAlignment = 4;

    // Both rings begin with flags and idx, and end with an event index.
    private const int RingHeader = 4, RingEvent = 2, AvailableEntry = 2, UsedEntry = 8;

    // Safe to keep: the whole areas were found in RAM, which outlives every queue. All are aligned.
    private readonly byte* _descriptors;
    private readonly ushort* _availableFlags, _availableIndex, _availableRing, _usedEvent;
    private readonly ushort* _usedFlags, _usedIndex, _availableEvent;
    private readonly ulong* _usedRing;
    private readonly int _mask;
    // What the driver was seen to have made available; past _nextAvailable it was not looked at yet.
    private ushort _nextAvailable, _seenAvailable;
    // Staged up to _nextUsed, visible to the driver up to _publishedUsed.
    private ushort _nextUsed, _publishedUsed;
    // VIRTIO_F_IN_ORDER: where the entry of the batch is that the next chain may join.
    private ushort _batchStart;
    private bool _batchOpen;

    private SplitQueue(
        in VirtQueueSetup setup, VirtioActivation activation, QueueCounters counters, byte* descriptors, byte* available, byte* used)
        : base(setup, activation, counters)
    {
        _mask = setup.Size - 1;
        _descriptors = descriptors;
        _availableFlags = (ushort*)available;
        _availableIndex = (ushort*)(available + 2);
        _availableRing = (ushort*)(available + RingHeader);
        _usedEvent = _availableRing + setup.Size;
        _usedFlags = (ushort*)used;
        _usedIndex = (ushort*)(used + 2);
        // Entries are 4 bytes off a multiple of 8 when the ring is aligned to 8: x86 writes them at once all the same.
        _usedRing = (ulong*)(used + RingHeader);
        _availableEvent = (ushort*)(_usedRing + setup.Size);
        _nextAvailable = _seenAvailable = setup.State.NextAvailable;
        _nextUsed = _publishedUsed = setup.State.NextUsed;
    }

    /// <inheritdoc/>
    public override VirtQueueState State
    {
        get
        {
            Flush();
            return new VirtQueueState(_nextAvailable, _publishedUsed, true, true);
        }
    }

    /// <inheritdoc/>
    public override bool HasAvailable
    {
        get
        {
            if (IsBroken)
                return false;
            if (_nextAvailable != _seenAvailable)
                return true;
            // Acquires what the driver wrote before it.
            ushort index = Volatile.Read(ref *_availableIndex);
            if (index == _nextAvailable)
                return false;
            if ((ushort)(index - _nextAvailable) > Size)
                return Broken("the available index is further ahead than the queue is large");
            _seenAvailable = index;
            return true;
        }
    }

    /// <summary>Makes the queue of a setup.</summary>
    public static bool TryCreateSplit(
        in VirtQueueSetup setup, VirtioActivation activation, QueueCounters counters, [NotNullWhen(true)] out VirtQueue? queue,
        [NotNullWhen(false)] out string? problem)
    {
        queue = null;
        problem = null;
        if (!BitOperations.IsPow2(setup.Size) || setup.Size > 32768)
        {
            problem = $"the size of a split queue is a power of two up to 32768, not {setup.Size}";
            return false;
        }
        GuestMemory memory = activation.Memory;
        uint size = setup.Size;
        byte* descriptors = memory.Pointer(setup.DescriptorArea, DescriptorBytes * size, DescriptorAlignment);
        byte* available = memory.Pointer(setup.DriverArea, RingHeader + RingEvent + (AvailableEntry * size), AvailableAlignment);
        byte* used = memory.Pointer(setup.DeviceArea, RingHeader + RingEvent + (UsedEntry * size), UsedAlignment);
        if (descriptors == null)
            problem = $"the descriptor table at 0x{setup.DescriptorArea:x} is misaligned or not in RAM";
        else if (available == null)
            problem = $"the available ring at 0x{setup.DriverArea:x} is misaligned or not in RAM";
        else if (used == null)
            problem = $"the used ring at 0x{setup.DeviceArea:x} is misaligned or not in RAM";
        else
            queue = new SplitQueue(setup, activation, counters, descriptors, available, used);
        return queue != null;
    }

    /// <inheritdoc/>
    public override bool TryTake([NotNullWhen(true)] out DescriptorChain? chain)
    {
        chain = null;
        if (!HasAvailable)
            return false;
        ushort head = Volatile.Read(ref _availableRing[_nextAvailable & _mask]);
        DescriptorChain? spare = Spare();
        if (spare == null || !TryFill(spare, head) || !TryClaim(spare, head, 1))
            return false;
        _nextAvailable++;
        chain = spare;
        return true;
    }

    /// <inheritdoc/>
    public override void Flush()
    {
        if (_nextUsed == _publishedUsed || IsBroken)
            return;
        ushort before = _publishedUsed;
        _publishedUsed = _nextUsed;
        _batchOpen = false;
        // Releases the entries.
        Volatile.Write(ref *_usedIndex, _nextUsed);
        // The driver writes its wish and then reads the index; without the barrier both sides could miss each other's write.
        Interlocked.MemoryBarrier();
        bool wanted = HasEventIndex
            ? (ushort)(_nextUsed - Volatile.Read(ref *_usedEvent) - 1) < (ushort)(_nextUsed - before)
            : (Volatile.Read(ref *_availableFlags) & AvailNoInterrupt) == 0;
        if (wanted)
            SignalDriver();
    }

    /// <inheritdoc/>
    public override void SuppressNotifications()
    {
        // With an event index there is nothing to do: the driver has passed it and stays silent until it is moved (§2.7.10).
        if (!HasEventIndex && !IsBroken)
            Volatile.Write(ref *_usedFlags, UsedNoNotify);
    }

    /// <inheritdoc/>
    public override bool RequestNotifications()
    {
        if (IsBroken)
            return false;
        if (HasEventIndex)
            Volatile.Write(ref *_availableEvent, _nextAvailable);
        else
            Volatile.Write(ref *_usedFlags, 0);
        // The driver writes its index and then reads the wish; without the barrier both sides could miss each other's write.
        Interlocked.MemoryBarrier();
        return HasAvailable;
    }

    /// <inheritdoc/>
    protected override void Stage(DescriptorChain chain, uint written)
    {
        // Buffers that were used whole need no entry of their own when one after them has one (§2.7.9, VIRTIO_F_IN_ORDER).
        if (!_batchOpen)
            _batchStart = _nextUsed;
        _usedRing[_batchStart & _mask] = chain.Id | ((ulong)written << 32);
        _batchOpen = IsInOrder && written == chain.WritableLength;
        _nextUsed++;
    }

    /// <inheritdoc/>
    protected override void StepBack(DescriptorChain chain) => _nextAvailable--;

    private bool TryFill(DescriptorChain chain, ushort head)
    {
        uint index = head;
        for (int seen = 0; seen < Size; seen++)
        {
            if (index >= Size)
                return Broken("a descriptor's index is beyond the table");
            var descriptor = (ulong*)(_descriptors + (index * DescriptorBytes));
            ulong address = Volatile.Read(ref descriptor[0]);
            ulong rest = Volatile.Read(ref descriptor[1]);
            ushort flags = (ushort)(rest >> 32);
            if ((flags & DescIndirect) != 0)
            {
                // Normal descriptors may come before it, but nothing after it (§2.7.5.3.1).
                return (flags & DescNext) != 0
                    ? Broken("an indirect descriptor has a next one")
                    : TryAppendTable(chain, address, (uint)rest, linked: true);
            }
            if (!TryAppend(chain, address, (uint)rest, (flags & DescWrite) != 0))
                return false;
            if ((flags & DescNext) == 0)
                return true;
            index = (ushort)(rest >> 48);
        }
        return Broken("the descriptors of a chain loop");
    }
}
