using Vmm.Core.Locking;
using Vmm.Core.Memory;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Kvm;

/// <summary>
/// The memory slots of a VM: RAM, persistent memory, shared windows. KVM finds a slot by a number, which is handed out here; KVM itself
/// keeps slots from overlapping.
/// </summary>
internal sealed unsafe class KvmMemorySlots(KvmVm vm) : IGuestMemorySlots
{
    // Changing a slot stops all vCPUs for a moment in the kernel, one change at a time: our lock costs nothing beside that.
    private readonly OrderedLock _lock = new(LockRank.MemorySlots);
    private readonly List<Slot?> _slots = [];

    // Numbers below the list's length that are nobody's: a search for one would grow with the slots that live.
    private readonly Stack<int> _free = new();
    private readonly int _most = Math.Max(vm.CheckExtension(KVM_CAP_NR_MEMSLOTS), 32);

    /// <summary>What is mapped, by number.</summary>
    internal IReadOnlyList<(int Number, AddressRange Range)> Slots
    {
        get
        {
            using (_lock.Enter())
            {
                var list = new List<(int, AddressRange)>();
                for (int i = 0; i < _slots.Count; i++)
                {
                    if (_slots[i] is { } slot)
                        list.Add((i, new AddressRange(slot.GuestAddress, slot.Length)));
                }
                return list;
            }
        }
    }

    /// <summary>Shows host memory to the guest at an address that the program itself chose.</summary>
    /// <returns>The slot's number.</returns>
    /// <exception cref="VmmException">KVM refuses.</exception>
    internal int Map(ulong guestAddress, ulong length, nint hostAddress, bool readOnly = false)
    {
        int error = Map(guestAddress, length, hostAddress, readOnly, out int slot);
        if (error != 0)
            throw KvmError.From(error, $"map {length} bytes of memory at guest address 0x{guestAddress:x}");
        return slot;
    }

    /// <inheritdoc/>
    public bool TryMap(ulong guestAddress, ulong length, nint hostAddress, bool readOnly, out int slot) =>
        Map(guestAddress, length, hostAddress, readOnly, out slot) == 0;

    /// <inheritdoc/>
    public bool TryMove(int slot, ulong guestAddress)
    {
        using (_lock.Enter())
        {
            if (Find(slot) is not { } old)
                return false;
            if (old.GuestAddress == guestAddress)
                return true;
            if (Set(slot, old with { GuestAddress = guestAddress }) != 0)
                return false;
            _slots[slot] = old with { GuestAddress = guestAddress };
            return true;
        }
    }

    /// <inheritdoc/>
    public void Unmap(int slot)
    {
        using (_lock.Enter())
        {
            if (Find(slot) is not { } old)
                return;
            // Deleting a slot that is there cannot be refused; where the VM is gone already, so is the slot.
            _ = Set(slot, old with { Length = 0 });
            _slots[slot] = null;
            _free.Push(slot);
        }
    }

    private int Map(ulong guestAddress, ulong length, nint hostAddress, bool readOnly, out int number)
    {
        // A size of 0 would delete a slot.
        ArgumentOutOfRangeException.ThrowIfZero(length);
        using (_lock.Enter())
        {
            number = _free.TryPeek(out int free) ? free : _slots.Count;
            if (number >= _most)
                return ENOSPC;
            var slot = new Slot(guestAddress, length, hostAddress, readOnly ? KVM_MEM_READONLY : 0);
            int error = Set(number, slot);
            if (error != 0)
                return error;
            if (number == _slots.Count)
                _slots.Add(slot);
            else
                _slots[_free.Pop()] = slot;
            return 0;
        }
    }

    private Slot? Find(int slot) => (uint)slot < (uint)_slots.Count ? _slots[slot] : null;

    private int Set(int number, Slot slot) =>
        vm.TrySetMemoryRegion((uint)number, slot.GuestAddress, slot.Length, (byte*)slot.HostAddress, slot.Flags);

    private readonly record struct Slot(ulong GuestAddress, ulong Length, nint HostAddress, uint Flags);
}
