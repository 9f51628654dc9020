using Vmm.Core.Memory;
using Vmm.Virtio.Queues;

namespace Vmm.Virtio.VhostUser;

/// <summary>One queue as the worker knows it. The worker's own.</summary>
internal sealed class Ring(int index)
{
    internal int Index => index;

    /// <summary>As the driver set it up; its state is where the back-end begins.</summary>
    internal VirtQueueSetup Setup { get; set; }

    /// <summary>The driver wants it to be served.</summary>
    internal bool IsWanted { get; set; }

    /// <summary>Where the back-end said that it stands when it stopped it; null where this one has not said so.</summary>
    internal VirtQueueState? Told { get; set; }

    /// <summary>The back-end serves it.</summary>
    internal bool IsServed { get; set; }

    /// <summary>
    /// Where a back-end goes on that takes over from one that died: what was used is done. The rest is done again, in the ring's order;
    /// with requests that were completed out of order that is right only with the buffer of requests in flight.
    /// </summary>
    internal VirtQueueState AfterLoss(GuestMemory memory, bool packed)
    {
        // A packed ring says nowhere how far it was used.
        if (packed || !memory.TryRead(Setup.DeviceArea + UsedIndexOffset, out ushort used))
            return Setup.State;
        return Setup.State with { NextAvailable = used, NextUsed = used };
    }

    /// <summary>SET_VRING_BASE's and GET_VRING_BASE's number for a state.</summary>
    internal static uint ToBase(VirtQueueState state, bool packed) => !packed
        ? state.NextAvailable
        : Half(state.NextAvailable, state.AvailableWrap) | Half(state.NextUsed, state.UsedWrap) << 16;

    /// <summary>
    /// The state for such a number; null where no ring of this size can stand there. What the ring's memory says is not asked: a guest may
    /// have overwritten it by now (kexec), and most stops are for a reset, which forgets the state. It is asked when the ring is started there.
    /// </summary>
    internal VirtQueueState? FromBase(uint number, bool packed)
    {
        if (packed)
        {
            var state = new VirtQueueState(
                (ushort)(number & 0x7FFF), (ushort)(number >> 16 & 0x7FFF), (number & 0x8000) != 0, (number & 0x8000_0000) != 0);
            return state.NextAvailable < Setup.Size && state.NextUsed < Setup.Size ? state : null;
        }
        ushort index = (ushort)number;
        return new VirtQueueState(index, index, true, true);
    }

    /// <summary>Whether the ring's memory has no more requests made available than it has room for, counted from where it begins.</summary>
    internal bool IsPositionPossible(GuestMemory memory, bool packed) =>
        // A packed ring does not say.
        packed
        || (memory.TryRead(Setup.DriverArea + AvailableIndexOffset, out ushort available) && (ushort)(available - Setup.State.NextAvailable) <= Setup.Size);

    // VIRTIO 1.3 §2.7.6, §2.7.8: after the flags.
    private const ulong AvailableIndexOffset = 2;
    private const ulong UsedIndexOffset = 2;

    private static uint Half(ushort index, bool wrap) => (uint)(index & 0x7FFF) | (wrap ? 0x8000u : 0);
}
