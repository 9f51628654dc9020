using Vmm.Core.Memory;

namespace Vmm.Virtio.Tests.Devices.Pmem;

/// <summary>An address space that keeps a list, and refuses what overlaps.</summary>
internal sealed class FakeSlots : IGuestMemorySlots
{
    public Dictionary<int, (AddressRange Range, nint Host, bool ReadOnly)> Mapped { get; } = [];

    public int Moves { get; private set; }

    /// <summary>What the host refuses for its own reasons.</summary>
    public Func<AddressRange, bool> Refuses { get; set; } = _ => false;

    public bool TryMap(ulong guestAddress, ulong length, nint hostAddress, bool readOnly, out int slot)
    {
        slot = Mapped.Count;
        while (Mapped.ContainsKey(slot))
            slot++;
        var range = new AddressRange(guestAddress, length);
        if (Refuses(range) || Mapped.Values.Any(m => m.Range.Overlaps(range)))
            return false;
        Mapped.Add(slot, (range, hostAddress, readOnly));
        return true;
    }

    public bool TryMove(int slot, ulong guestAddress)
    {
        (AddressRange old, nint host, bool readOnly) = Mapped[slot];
        AddressRange range = old with { Start = guestAddress };
        if (Refuses(range) || Mapped.Any(m => m.Key != slot && m.Value.Range.Overlaps(range)))
            return false;
        Mapped[slot] = (range, host, readOnly);
        Moves++;
        return true;
    }

    public void Unmap(int slot) => Assert.True(Mapped.Remove(slot));
}
