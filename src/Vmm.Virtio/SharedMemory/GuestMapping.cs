using Vmm.Core.Memory;

namespace Vmm.Virtio.SharedMemory;

/// <summary>A range of host memory that the guest reaches through a memory slot of its own. Belongs to the lock of the region that it is in.</summary>
/// <param name="slots">The guest's address space.</param>
/// <param name="host">Where it is mapped in this process.</param>
/// <param name="length">Bytes, whole pages.</param>
/// <param name="readOnly">Whether the guest's writes go to the bus.</param>
internal class GuestMapping(IGuestMemorySlots slots, nint host, ulong length, bool readOnly)
{
    private int _slot = -1;
    private ulong _address;

    /// <summary>Where it is mapped in this process.</summary>
    internal nint Host { get; } = host;

    /// <summary>Bytes, whole pages.</summary>
    internal ulong MappedLength { get; } = length;

    /// <summary>Bytes from the start that a slot shows; less than all once the file was truncated.</summary>
    internal ulong Shown { get; private set; } = length;

    internal bool ReadOnly { get; } = readOnly;

    /// <summary>Whether the guest reaches it directly.</summary>
    internal bool HasSlot => Volatile.Read(ref _slot) >= 0;

    /// <summary>Shows it at an address, or nowhere.</summary>
    /// <returns>False where the host refuses: the guest does not reach it directly then, neither there nor where it was.</returns>
    internal bool TryPlace(ulong? guestAddress)
    {
        if (guestAddress is not { } to || Shown == 0)
        {
            Hide();
            return true;
        }
        if (_slot >= 0)
        {
            if (slots.TryMove(_slot, to))
            {
                _address = to;
                return true;
            }
            Hide();
        }
        if (!slots.TryMap(to, Shown, Host, ReadOnly, out int slot))
            return false;
        _address = to;
        Volatile.Write(ref _slot, slot);
        return true;
    }

    /// <summary>Takes it out of the guest's sight: when this returns, no vCPU reaches it.</summary>
    internal void Hide()
    {
        if (_slot < 0)
            return;
        slots.Unmap(_slot);
        Volatile.Write(ref _slot, -1);
    }

    /// <summary>Shows less of it from now on. In between nothing is shown, so accesses go to the bus for a moment.</summary>
    /// <returns>False where the host refuses to show what is left.</returns>
    internal bool Shrink(ulong left)
    {
        bool placed = _slot >= 0;
        Hide();
        Shown = left;
        return !placed || TryPlace(_address);
    }
}
