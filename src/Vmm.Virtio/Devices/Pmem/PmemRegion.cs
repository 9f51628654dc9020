using Vmm.Core.Bus;
using Vmm.Core.Interop;
using Vmm.Core.Locking;
using Vmm.Core.Memory;
using Vmm.Virtio.SharedMemory;

namespace Vmm.Virtio.Devices.Pmem;

/// <summary>
/// The device's memory as shared memory region 0. There is one memory slot: it is at the place that the layout gave it until a transport
/// places the region, then there. So the configuration space can always say where it is, to drivers that know no regions (Linux before
/// 6.9) too.
/// </summary>
/// <remarks>Somebody may truncate the file: from there on the guest reads ones, and what it writes is dropped.</remarks>
internal sealed unsafe class PmemRegion : SharedMemoryRegion
{
    private readonly GuestMapping _mapping;
    private readonly HostBackedMemory _behind;
    private readonly ulong _fileLength;
    private readonly ulong _home;
    private readonly OrderedLock _lock = new(LockRank.SharedMemory);
    private GuestMemory? _memory;
    private ulong _address;
    private bool _removed;

    /// <summary>Shows it at the place that the layout gave it.</summary>
    /// <param name="slots">The guest's address space.</param>
    /// <param name="owner">What the memory is a part of.</param>
    /// <param name="host">Where it is mapped.</param>
    /// <param name="length">Bytes.</param>
    /// <param name="fileLength">Bytes of it that are the file's, whole pages; above 0. Those beyond cannot vanish.</param>
    /// <param name="home">The place.</param>
    internal PmemRegion(IGuestMemorySlots slots, HostMapping owner, nint host, ulong length, ulong fileLength, ulong home)
        : base(PmemProtocol.RegionId, length)
    {
        _mapping = new GuestMapping(slots, host, length, readOnly: false);
        _behind = new HostBackedMemory(this, owner, (byte*)host);
        _fileLength = fileLength;
        _home = home;
        _address = home;
        _mapping.TryPlace(home);
    }

    /// <summary>Where the guest has been told to look for it.</summary>
    internal ulong Address => Volatile.Read(ref _address);

    /// <summary>Whether it is there: not where other memory is, or the guest cannot address it.</summary>
    internal bool IsMapped => _mapping.HasSlot;

    /// <inheritdoc/>
    public override ulong? PreferredAddress => _home;

    /// <inheritdoc/>
    internal override bool IsAtPreferredAddress => Address == _home;

    /// <inheritdoc/>
    public override IBusDevice Behind => _behind;

    /// <inheritdoc/>
    public override void Place(ulong? guestAddress)
    {
        using (_lock.Enter())
        {
            ulong address = guestAddress ?? _home;
            if (_removed || (address == _address && _mapping.HasSlot))
                return;
            Volatile.Write(ref _address, address);
            // Where that is refused it is not where the driver thinks it no longer is, either.
            _mapping.TryPlace(address);
            _memory?.SetVanishing(this, new AddressRange(address, Length), _mapping.Host);
        }
    }

    /// <inheritdoc/>
    internal override void ShareWithDevices(GuestMemory memory)
    {
        using (_lock.Enter())
        {
            _memory = memory;
            memory.SetVanishing(this, new AddressRange(_address, Length), _mapping.Host);
        }
    }

    /// <inheritdoc/>
    public override GuestFaultAnswer Resolve()
    {
        ulong shown = Math.Min(_mapping.Shown, _fileLength);
        if (shown == 0)
            return GuestFaultAnswer.Unexplained;
        ulong left = FaultableMemory.LengthLeft((byte*)_mapping.Host, shown);
        using (_lock.Enter())
        {
            if (left == shown || _removed || _mapping.Shown <= left)
                return GuestFaultAnswer.Unexplained;
            if (!_mapping.Shrink(left))
                Tell(SharedMemoryTrouble.NotDirect);
        }
        Counters.CountTruncation();
        Tell(SharedMemoryTrouble.Truncated);
        return GuestFaultAnswer.Resolved;
    }

    /// <summary>Takes it away for good.</summary>
    internal void Remove()
    {
        using (_lock.Enter())
        {
            _removed = true;
            _mapping.Hide();
            _memory?.SetVanishing(this, default, 0);
        }
    }
}
