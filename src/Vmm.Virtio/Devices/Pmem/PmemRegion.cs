using Vmm.Core.Memory;
using Vmm.Virtio.SharedMemory;

namespace Vmm.Virtio.Devices.Pmem;

/// <summary>
/// The device's memory as shared memory region 0. There is one memory slot: it is at the place that the layout gave it until a transport
/// places the region, then there. So the configuration space can always say where it is, to drivers that know no regions (Linux before
/// 6.9) too.
/// </summary>
internal sealed class PmemRegion : SharedMemoryRegion
{
    private readonly IGuestMemorySlots _slots;
    private readonly nint _host;
    private readonly ulong _home;
    private readonly Lock _lock = new();
    private int _slot = -1;
    private ulong _address;

    internal PmemRegion(IGuestMemorySlots slots, nint host, ulong length, ulong home) : base(PmemProtocol.RegionId, length)
    {
        _slots = slots;
        _host = host;
        _home = home;
        _address = home;
        Put(home);
    }

    /// <summary>Where the guest has been told to look for it.</summary>
    internal ulong Address => Volatile.Read(ref _address);

    /// <summary>Whether it is there: not where other memory is, or the guest cannot address it.</summary>
    internal bool IsMapped => Volatile.Read(ref _slot) >= 0;

    /// <inheritdoc/>
    public override ulong? PreferredAddress => _home;

    /// <inheritdoc/>
    public override void Place(ulong? guestAddress)
    {
        lock (_lock)
        {
            ulong address = guestAddress ?? _home;
            if (address == _address && _slot >= 0)
                return;
            Put(address);
        }
    }

    /// <summary>Takes it away for good.</summary>
    internal void Remove()
    {
        lock (_lock)
        {
            if (_slot >= 0)
                _slots.Unmap(_slot);
            _slot = -1;
        }
    }

    private void Put(ulong address)
    {
        Volatile.Write(ref _address, address);
        if (_slot >= 0)
        {
            if (_slots.TryMove(_slot, address))
                return;
            // Not where the driver thinks it no longer is.
            _slots.Unmap(_slot);
        }
        Volatile.Write(ref _slot, _slots.TryMap(address, Length, _host, readOnly: false, out int slot) ? slot : -1);
    }
}
