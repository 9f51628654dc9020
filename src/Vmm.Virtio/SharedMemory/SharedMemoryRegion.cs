namespace Vmm.Virtio.SharedMemory;

/// <summary>
/// A range of memory that a device shares with its driver (VIRTIO 1.3 §2.10), found by its id. A transport says where the guest sees it;
/// what is behind it is the device's.
/// </summary>
public abstract class SharedMemoryRegion
{
    /// <summary>Names a region.</summary>
    /// <param name="id">Its id, unique in the device.</param>
    /// <param name="length">Bytes; a multiple of the page size, above 0.</param>
    protected SharedMemoryRegion(byte id, ulong length)
    {
        ArgumentOutOfRangeException.ThrowIfZero(length);
        Id = id;
        Length = length;
    }

    /// <summary>Its id, unique in the device.</summary>
    public byte Id { get; }

    /// <summary>Bytes.</summary>
    public ulong Length { get; }

    /// <summary>Where a transport that may choose puts it, as the machine's layout keeps room there; null for anywhere.</summary>
    public virtual ulong? PreferredAddress => null;

    /// <summary>
    /// The guest sees it at an address from now on, and no more where it was before. Called with the transport's lock held; repeating an
    /// address costs nothing.
    /// </summary>
    /// <param name="guestAddress">A multiple of the page size, with no RAM there; null for nowhere (a BAR that is switched off).</param>
    public abstract void Place(ulong? guestAddress);
}
