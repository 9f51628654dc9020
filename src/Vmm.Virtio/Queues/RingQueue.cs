using Vmm.Core.Memory;

namespace Vmm.Virtio.Queues;

/// <summary>What both layouts share: the chains and who has them, the order of giving back, and the checks of a buffer.</summary>
internal abstract unsafe class RingQueue : VirtQueue
{
    /// <summary>VIRTQ_DESC_F_NEXT: the chain goes on (VIRTIO 1.3 §2.7.5, §2.8.6).</summary>
    protected const ushort DescNext = 1;

    /// <summary>VIRTQ_DESC_F_WRITE: the device writes the buffer, else it reads it (§2.7.5, §2.8.6).</summary>
    protected const ushort DescWrite = 2;

    /// <summary>VIRTQ_DESC_F_INDIRECT: the buffer is a table of descriptors (§2.7.5.3, §2.8.7).</summary>
    protected const ushort DescIndirect = 4;

    /// <summary>Bytes of a descriptor, in a ring or in an indirect table, in both layouts (§2.7.5, §2.8.13).</summary>
    protected const uint DescriptorBytes = 16;

    /// <summary>Bytes that one chain may describe at most (§2.7.4.2, §2.8.5).</summary>
    private const ulong MaximumBytes = 1UL << 32;

    private readonly GuestMemory _memory;
    private readonly DescriptorChain?[] _chains;
    private readonly ushort[] _spares;
    private readonly bool[] _busyIds;
    private readonly DescriptorChain?[]? _order;
    private int _spareCount;
    private int _orderFirst, _orderCount;
    private ulong _taken;
    // The RAM range of the buffer before: the next one is nearly always in it too.
    private ulong _regionStart, _regionLength;
    private byte* _regionHost;

    private protected RingQueue(in VirtQueueSetup setup, VirtioActivation activation, QueueCounters counters)
        : base(setup, activation, counters)
    {
        _memory = activation.Memory;
        _chains = new DescriptorChain?[setup.Size];
        _busyIds = new bool[setup.Size];
        _spares = new ushort[setup.Size];
        _spareCount = setup.Size;
        for (int i = 0; i < setup.Size; i++)
            _spares[i] = (ushort)(setup.Size - 1 - i);
        if (activation.Has(VirtioFeatures.InOrder))
            _order = new DescriptorChain?[setup.Size];
        HasEventIndex = activation.Has(VirtioFeatures.EventIndex);
        HasIndirect = activation.Has(VirtioFeatures.IndirectDescriptors);
    }

    /// <summary>VIRTIO_F_EVENT_IDX was accepted.</summary>
    protected bool HasEventIndex { get; }

    /// <summary>VIRTIO_F_INDIRECT_DESC was accepted.</summary>
    protected bool HasIndirect { get; }

    /// <summary>VIRTIO_F_IN_ORDER was accepted.</summary>
    protected bool IsInOrder => _order != null;

    /// <inheritdoc/>
    public sealed override void GiveBack(DescriptorChain chain, uint written)
    {
        ArgumentNullException.ThrowIfNull(chain);
        if (chain.Phase != ChainPhase.Taken || _chains[chain.Slot] != chain)
            throw new InvalidOperationException($"Queue {Index}: a chain was given back that had not been taken from it.");
        ArgumentOutOfRangeException.ThrowIfGreaterThan(written, chain.WritableLength);
        if (IsBroken)
        {
            chain.Phase = ChainPhase.Free;
            return;
        }
        if (_order == null)
        {
            Release(chain);
            Stage(chain, written);
            Counters.CountRequest();
            return;
        }
        chain.Written = written;
        chain.Phase = ChainPhase.Waiting;
        while (_orderCount > 0 && _order[_orderFirst] is { Phase: ChainPhase.Waiting } first)
        {
            _orderFirst = _orderFirst + 1 == Size ? 0 : _orderFirst + 1;
            _orderCount--;
            Release(first);
            Stage(first, first.Written);
            Counters.CountRequest();
        }
    }

    /// <inheritdoc/>
    public sealed override void Untake(DescriptorChain chain)
    {
        ArgumentNullException.ThrowIfNull(chain);
        if (chain.Phase != ChainPhase.Taken || _chains[chain.Slot] != chain || (chain.Sequence != _taken - 1 && !IsBroken))
            throw new InvalidOperationException($"Queue {Index}: a chain was put back that was not the last one taken.");
        if (IsBroken)
        {
            chain.Phase = ChainPhase.Free;
            return;
        }
        _taken--;
        if (_order != null)
            _orderCount--;
        Release(chain);
        StepBack(chain);
    }

    /// <summary>Writes the used entry of a chain where the driver does not look yet.</summary>
    protected abstract void Stage(DescriptorChain chain, uint written);

    /// <summary>The next chain to take is this one again.</summary>
    protected abstract void StepBack(DescriptorChain chain);

    /// <summary>An empty chain to fill; null when all are taken, which no honest driver can bring about.</summary>
    protected DescriptorChain? Spare()
    {
        if (_spareCount == 0)
        {
            Break("more buffers were made available than the queue has descriptors");
            return null;
        }
        int slot = _spares[_spareCount - 1];
        DescriptorChain chain = _chains[slot] ??= new DescriptorChain(slot);
        chain.Clear();
        return chain;
    }

    /// <summary>The spare chain is filled and goes to the device; false where the driver broke a rule with it.</summary>
    protected bool TryClaim(DescriptorChain chain, ushort id, ushort ringEntries)
    {
        if (id >= Size)
            return Broken("a buffer's id is not below the queue's size");
        if (_busyIds[id])
            return Broken("a buffer was made available again before it was used");
        if (chain.ReadableLength + chain.WritableLength > MaximumBytes)
            return Broken("a chain describes more than 2^32 bytes");
        _busyIds[id] = true;
        _spareCount--;
        chain.Id = id;
        chain.RingEntries = ringEntries;
        chain.Sequence = _taken++;
        chain.Phase = ChainPhase.Taken;
        if (_order != null)
        {
            int last = _orderFirst + _orderCount++;
            _order[last >= Size ? last - Size : last] = chain;
        }
        return true;
    }

    /// <summary>Appends what a descriptor describes; false where the driver broke a rule with it.</summary>
    protected bool TryAppend(DescriptorChain chain, ulong address, uint length, bool writable)
    {
        if (length == 0)
            return Broken("a descriptor describes no bytes");
        ulong offset = address - _regionStart;
        if (offset < _regionLength && length <= _regionLength - offset)
            return chain.TryAppend(new GuestSegment((nint)(_regionHost + offset), length), writable) || Unfit(chain, writable);
        return TryAppendParts(chain, address, length, writable);
    }

    /// <summary>Appends what an indirect table describes (§2.7.5.3, §2.8.7); false where the driver broke a rule with it.</summary>
    /// <param name="chain">The chain to append to.</param>
    /// <param name="address">The table, which needs no alignment.</param>
    /// <param name="length">Its bytes.</param>
    /// <param name="linked">Split: the descriptors are linked. Packed: they follow each other, and only their WRITE flag counts.</param>
    protected bool TryAppendTable(DescriptorChain chain, ulong address, uint length, bool linked)
    {
        if (!HasIndirect)
            return Broken("an indirect descriptor without VIRTIO_F_INDIRECT_DESC");
        if (length == 0 || length % DescriptorBytes != 0)
            return Broken("an indirect table's length is not a multiple of a descriptor's");
        uint entries = length / DescriptorBytes;
        byte* table = _memory.Pointer(address, length, 1);
        uint index = 0;
        for (uint seen = 0; seen < entries; seen++)
        {
            UInt128 descriptor;
            if (table != null)
                descriptor = System.Runtime.CompilerServices.Unsafe.ReadUnaligned<UInt128>(table + (index * DescriptorBytes));
            else if (address > ulong.MaxValue - length || !_memory.TryRead(address + (index * DescriptorBytes), out descriptor))
                return Broken("an indirect table is not in RAM");
            ulong rest = (ulong)(descriptor >> 64);
            // Split: flags, then next; packed: id, then flags.
            ushort flags = (ushort)(rest >> (linked ? 32 : 48));
            if (linked && (flags & DescIndirect) != 0)
                return Broken("an indirect descriptor in an indirect table");
            if (!TryAppend(chain, (ulong)descriptor, (uint)rest, (flags & DescWrite) != 0))
                return false;
            if (!linked)
            {
                index++;
                continue;
            }
            if ((flags & DescNext) == 0)
                return true;
            index = (ushort)(rest >> 48);
            if (index >= entries)
                return Broken("a descriptor's next is beyond its indirect table");
        }
        return !linked || Broken("the descriptors of an indirect table loop");
    }

    /// <summary>The driver broke a rule; always false.</summary>
    protected bool Broken(string reason)
    {
        Break(reason);
        return false;
    }

    private bool TryAppendParts(DescriptorChain chain, ulong address, ulong length, bool writable)
    {
        while (length > 0)
        {
            GuestRegion? region = _memory.RegionAt(address);
            if (region == null)
            {
                if (!ReachesVanishing || !_memory.TryFindVanishing(address, out byte* host, out ulong left))
                    return Broken("a buffer is not in RAM");
                left = Math.Min(length, left);
                if (!chain.TryAppend(new GuestSegment((nint)host, (nuint)left), writable))
                    return Unfit(chain, writable);
                chain.MayVanish = true;
                address += left;
                length -= left;
                if (address == 0 && length > 0)
                    return Broken("a buffer wraps around the address space");
                continue;
            }
            _regionStart = region.Start;
            _regionLength = region.Length;
            _regionHost = region.Host;
            ulong offset = address - region.Start;
            ulong part = Math.Min(length, region.Length - offset);
            if (!chain.TryAppend(new GuestSegment((nint)(region.Host + offset), (nuint)part), writable))
                return Unfit(chain, writable);
            address += part;
            length -= part;
            // Nothing lies beyond the top of the address space, nor at its bottom again.
            if (address == 0 && length > 0)
                return Broken("a buffer wraps around the address space");
        }
        return true;
    }

    private bool Unfit(DescriptorChain chain, bool writable) => Broken(
        !writable && !chain.Writable.IsEmpty ? "a readable descriptor follows a writable one" : "a chain has too many segments");

    private void Release(DescriptorChain chain)
    {
        chain.Phase = ChainPhase.Free;
        _busyIds[chain.Id] = false;
        _spares[_spareCount++] = (ushort)chain.Slot;
    }
}
