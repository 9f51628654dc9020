using System.Diagnostics.CodeAnalysis;
using Vmm.Core.Memory;

namespace Vmm.Virtio.Queues;

/// <summary>A packed virtqueue (VIRTIO 1.3 §2.8): one ring of descriptors that driver and device both write, in which a lap bit says whose an entry is.</summary>
internal sealed unsafe class PackedQueue : RingQueue
{
    /// <summary>VIRTQ_DESC_F_AVAIL (§2.8.1).</summary>
    private const ushort DescAvailable = 1 << 7;

    /// <summary>VIRTQ_DESC_F_USED (§2.8.1).</summary>
    private const ushort DescUsed = 1 << 15;

    /// <summary>RING_EVENT_FLAGS_ENABLE, _DISABLE and _DESC (§2.8.14).</summary>
    private const uint EventEnable = 0, EventDisable = 1, EventDescriptor = 2;

    private const ulong DescriptorAlignment = 16, EventAlignment = 4;
    private const uint EventBytes = 4;
    private const uint EventWrap = 1 << 15;

    // Safe to keep: the whole areas were found in RAM, which outlives every queue. All are aligned.
    private readonly ulong* _ring;
    private readonly uint* _driverEvent, _deviceEvent;
    private int _nextAvailable, _nextUsed;
    private bool _availableWrap, _usedWrap;
    // Ring entries of what is taken and not staged yet.
    private int _inFlight;
    // What is staged since the last Flush: entries, and the first one's second half, which alone shows it to the driver.
    private int _stagedEntries, _firstStaged;
    private ulong _firstHalf;
    private bool _firstWrap;
    // VIRTIO_F_IN_ORDER: where the entry of the batch is that the next chain may join, and the lap bits there.
    private int _batchStart;
    private bool _batchOpen, _batchWrap;

    private PackedQueue(
        in VirtQueueSetup setup, VirtioActivation activation, QueueCounters counters, byte* ring, byte* driverEvent, byte* deviceEvent)
        : base(setup, activation, counters)
    {
        _ring = (ulong*)ring;
        _driverEvent = (uint*)driverEvent;
        _deviceEvent = (uint*)deviceEvent;
        _nextAvailable = setup.State.NextAvailable;
        _availableWrap = setup.State.AvailableWrap;
        _nextUsed = setup.State.NextUsed;
        _usedWrap = setup.State.UsedWrap;
    }

    /// <inheritdoc/>
    public override VirtQueueState State
    {
        get
        {
            Flush();
            // Only a broken queue still has something staged, which the driver will never see.
            if (_stagedEntries > 0)
                return new VirtQueueState((ushort)_nextAvailable, (ushort)_firstStaged, _availableWrap, _firstWrap);
            return new VirtQueueState((ushort)_nextAvailable, (ushort)_nextUsed, _availableWrap, _usedWrap);
        }
    }

    /// <inheritdoc/>
    public override bool HasAvailable => !IsBroken && IsAvailable(Volatile.Read(ref SecondHalf(_nextAvailable)), _availableWrap);

    /// <summary>Makes the queue of a setup.</summary>
    public static bool TryCreatePacked(
        in VirtQueueSetup setup, VirtioActivation activation, QueueCounters counters, [NotNullWhen(true)] out VirtQueue? queue,
        [NotNullWhen(false)] out string? problem)
    {
        queue = null;
        problem = null;
        if (setup.Size is 0 or > 32768)
        {
            problem = $"the size of a packed queue is 1 to 32768, not {setup.Size}";
            return false;
        }
        GuestMemory memory = activation.Memory;
        byte* ring = memory.Pointer(setup.DescriptorArea, DescriptorBytes * (ulong)setup.Size, DescriptorAlignment);
        byte* driverEvent = memory.Pointer(setup.DriverArea, EventBytes, EventAlignment);
        byte* deviceEvent = memory.Pointer(setup.DeviceArea, EventBytes, EventAlignment);
        if (setup.State.NextAvailable >= setup.Size || setup.State.NextUsed >= setup.Size)
            problem = "the state to begin with is beyond the queue's size";
        else if (ring == null)
            problem = $"the descriptor ring at 0x{setup.DescriptorArea:x} is misaligned or not in RAM";
        else if (driverEvent == null)
            problem = $"the driver's event suppression structure at 0x{setup.DriverArea:x} is misaligned or not in RAM";
        else if (deviceEvent == null)
            problem = $"the device's event suppression structure at 0x{setup.DeviceArea:x} is misaligned or not in RAM";
        else
            queue = new PackedQueue(setup, activation, counters, ring, driverEvent, deviceEvent);
        return queue != null;
    }

    /// <inheritdoc/>
    public override bool TryTake([NotNullWhen(true)] out DescriptorChain? chain)
    {
        chain = null;
        if (IsBroken)
            return false;
        // Length, id and flags in one read, which acquires the rest of the chain: the driver writes the first one's flags last (§2.8.21.1).
        ulong half = Volatile.Read(ref SecondHalf(_nextAvailable));
        if (!IsAvailable(half, _availableWrap))
            return false;
        DescriptorChain? spare = Spare();
        if (spare == null || !TryFill(spare, half, out ushort id, out int entries))
            return false;
        if (!TryClaim(spare, id, (ushort)entries))
            return false;
        _inFlight += entries;
        _nextAvailable += entries;
        if (_nextAvailable >= Size)
        {
            _nextAvailable -= Size;
            _availableWrap = !_availableWrap;
        }
        chain = spare;
        return true;
    }

    /// <inheritdoc/>
    public override void Flush()
    {
        if (_stagedEntries == 0 || IsBroken)
            return;
        int advanced = _stagedEntries;
        _stagedEntries = 0;
        _batchOpen = false;
        // Releases all the entries: the driver looks at none before this one.
        Volatile.Write(ref SecondHalf(_firstStaged), _firstHalf);
        // The driver writes its wish and then reads the flags; without the barrier both sides could miss each other's write.
        Interlocked.MemoryBarrier();
        if (IsInterruptWanted(Volatile.Read(ref *_driverEvent), advanced))
            SignalDriver();
    }

    /// <inheritdoc/>
    public override void SuppressNotifications()
    {
        if (!IsBroken)
            Volatile.Write(ref *_deviceEvent, EventDisable << 16);
    }

    /// <inheritdoc/>
    public override bool RequestNotifications()
    {
        if (IsBroken)
            return false;
        Volatile.Write(ref *_deviceEvent, HasEventIndex
            ? (uint)_nextAvailable | (_availableWrap ? EventWrap : 0) | (EventDescriptor << 16)
            : EventEnable << 16);
        // The driver writes its flags and then reads the wish; without the barrier both sides could miss each other's write.
        Interlocked.MemoryBarrier();
        return HasAvailable;
    }

    /// <inheritdoc/>
    protected override void Stage(DescriptorChain chain, uint written)
    {
        // Buffers that were used whole need no entry of their own when one after them has one (§2.8.9, VIRTIO_F_IN_ORDER).
        if (!_batchOpen)
        {
            _batchStart = _nextUsed;
            _batchWrap = _usedWrap;
        }
        ushort flags = (ushort)((_batchWrap ? DescAvailable | DescUsed : 0) | (written > 0 ? DescWrite : 0));
        ulong half = written | ((ulong)chain.Id << 32) | ((ulong)flags << 48);
        if (_stagedEntries == 0)
        {
            _firstStaged = _batchStart;
            _firstWrap = _batchWrap;
        }
        if (_batchStart == _firstStaged)
            _firstHalf = half;
        else
            SecondHalf(_batchStart) = half;
        _batchOpen = IsInOrder && written == chain.WritableLength;
        _stagedEntries += chain.RingEntries;
        _inFlight -= chain.RingEntries;
        _nextUsed += chain.RingEntries;
        if (_nextUsed >= Size)
        {
            _nextUsed -= Size;
            _usedWrap = !_usedWrap;
        }
    }

    /// <inheritdoc/>
    protected override void StepBack(DescriptorChain chain)
    {
        _inFlight -= chain.RingEntries;
        _nextAvailable -= chain.RingEntries;
        if (_nextAvailable < 0)
        {
            _nextAvailable += Size;
            _availableWrap = !_availableWrap;
        }
    }

    private static bool IsAvailable(ulong half, bool wrap)
    {
        uint flags = (uint)(half >> 48);
        bool available = (flags & DescAvailable) != 0, used = (flags & DescUsed) != 0;
        return available == wrap && used != wrap;
    }

    /// <summary>Length, id and flags of an entry; its address is before it.</summary>
    private ref ulong SecondHalf(int index) => ref _ring[(index * 2) + 1];

    private bool TryFill(DescriptorChain chain, ulong half, out ushort id, out int entries)
    {
        int index = _nextAvailable;
        // Entries that are taken and not staged are not the driver's, whatever their flags say.
        int most = Size - _inFlight - _stagedEntries;
        for (entries = 1; entries <= most; entries++)
        {
            ulong address = Volatile.Read(ref _ring[index * 2]);
            ushort flags = (ushort)(half >> 48);
            id = (ushort)(half >> 32);
            if ((flags & DescIndirect) != 0)
            {
                if ((flags & DescNext) != 0 || entries > 1)
                    return Broken("an indirect descriptor is part of a longer chain");
                return TryAppendTable(chain, address, (uint)half, linked: false);
            }
            if (!TryAppend(chain, address, (uint)half, (flags & DescWrite) != 0))
                return false;
            // The last one's id is the buffer's (§2.8.5).
            if ((flags & DescNext) == 0)
                return true;
            index = index + 1 == Size ? 0 : index + 1;
            half = Volatile.Read(ref SecondHalf(index));
        }
        id = 0;
        return Broken("a chain is longer than what is free of the ring");
    }

    /// <summary>Whether the driver's event suppression structure asks for an interrupt, after some entries up to the next used one (§2.8.14).</summary>
    private bool IsInterruptWanted(uint suppression, int advanced)
    {
        uint wish = (suppression >> 16) & 3;
        if (wish != EventDescriptor || !HasEventIndex)
            return wish != EventDisable;
        int wanted = (int)(suppression & (EventWrap - 1));
        if ((suppression & EventWrap) != 0 != _usedWrap)
            wanted -= Size;
        int distance = _nextUsed - wanted - 1;
        return distance >= 0 && distance < advanced;
    }
}
