namespace Vmm.Virtio.Queues;

/// <summary>
/// Where a queue stands, as a snapshot and the vhost-user ring base need it. Indices count as the ring's own do: modulo 2^16 for a split
/// ring; modulo the queue's size, with their wrap counters, for a packed one (VIRTIO 1.3 §2.7, §2.8.1).
/// </summary>
/// <param name="NextAvailable">The next entry to take.</param>
/// <param name="NextUsed">The next entry to give back.</param>
/// <param name="AvailableWrap">Packed: the wrap counter of <paramref name="NextAvailable"/>.</param>
/// <param name="UsedWrap">Packed: the wrap counter of <paramref name="NextUsed"/>.</param>
public readonly record struct VirtQueueState(ushort NextAvailable, ushort NextUsed, bool AvailableWrap, bool UsedWrap)
{
    /// <summary>The state of a queue that was just enabled; both wrap counters begin at 1 (§2.8.1).</summary>
    public static VirtQueueState Initial => new(0, 0, true, true);
}
