namespace Vmm.Core.Memory;

/// <summary>
/// Puts host memory into the guest's physical address space, where the guest then reaches it without us. Any thread; none of it throws for
/// an address that a guest chose.
/// </summary>
public interface IGuestMemorySlots
{
    /// <summary>Shows host memory to the guest.</summary>
    /// <param name="guestAddress">A multiple of the page size.</param>
    /// <param name="length">Bytes; a multiple of the page size, above 0.</param>
    /// <param name="hostAddress">Where it is mapped in this process, and stays until <see cref="Unmap"/>; a multiple of the page size.</param>
    /// <param name="readOnly">The guest's writes go to the MMIO bus instead.</param>
    /// <param name="slot">What the other members know it by.</param>
    /// <returns>False, and nothing changed, where other memory is, or which the guest cannot address, or when there are no slots left.</returns>
    bool TryMap(ulong guestAddress, ulong length, nint hostAddress, bool readOnly, out int slot);

    /// <summary>Shows it at another address, and no more where it was.</summary>
    /// <returns>False, and nothing changed, where it cannot be.</returns>
    bool TryMove(int slot, ulong guestAddress);

    /// <summary>Takes it back: when this returns, the guest does not reach it any more. The slot's number may then be another's.</summary>
    void Unmap(int slot);
}
