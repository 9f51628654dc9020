using System.Runtime.InteropServices;
using Vmm.Core.Memory;
using Vmm.Virtio.VhostUser.Protocol;

namespace Vmm.Virtio.VhostUser;

/// <summary>The guest's memory as a back-end is told of it. The worker's own.</summary>
internal sealed class MemoryTable
{
    /// <summary>
    /// Added to guest addresses where the protocol wants ours: the back-end knows these by the table only, and one that confuses
    /// the two finds nothing instead of the wrong thing.
    /// </summary>
    internal const ulong UserOffset = 1UL << 52;

    private readonly List<GuestRegion> _told = [];

    /// <summary>The address in the table of a guest address.</summary>
    internal static ulong UserAddress(ulong guestAddress) => guestAddress + UserOffset;

    /// <summary>Forgets what was told: it was another back-end.</summary>
    internal void Forget() => _told.Clear();

    /// <summary>Tells the back-end of all memory that there is, and of nothing else; false where it knows that already.</summary>
    /// <exception cref="BackEndException">It does not take it.</exception>
    internal bool Tell(MainChannel channel, BackEndOffer offer, GuestMemory memory)
    {
        IReadOnlyList<GuestRegion> regions = memory.Regions;
        if (_told.SequenceEqual(regions))
            return false;
        int most = offer.Has(ProtocolFeatures.ConfigureMemSlots) ? offer.MemorySlots : MemoryTableHead.MaximumRegions;
        if (regions.Count > most)
            throw BackEndException.Refused($"it has room for {most} ranges of memory, and the guest has {regions.Count}");
        foreach (GuestRegion region in regions)
        {
            if (region.FileDescriptor < 0)
                throw BackEndException.Refused("the guest's memory cannot be shared with it: use --memory shared=on");
        }
        if (offer.Has(ProtocolFeatures.ConfigureMemSlots))
            Change(channel, regions);
        else
            Replace(channel, regions);
        _told.Clear();
        _told.AddRange(regions);
        return true;
    }

    /// <summary>The memory is about to go: the back-end lets go of it where it can be told to.</summary>
    internal void Withdraw(MainChannel channel, BackEndOffer offer)
    {
        if (offer.Has(ProtocolFeatures.ConfigureMemSlots))
            Change(channel, []);
        // A table cannot be taken back; the next one replaces it.
        _told.Clear();
    }

    private void Change(MainChannel channel, IReadOnlyList<GuestRegion> regions)
    {
        // What goes, first: it may be where something comes, and there may be no room for both.
        foreach (GuestRegion gone in _told.Except(regions).ToArray())
        {
            channel.Send(FrontEndRequest.RemMemReg, new SingleMemoryRegion(0, Describe(gone)));
            _ = _told.Remove(gone);
        }
        foreach (GuestRegion come in regions.Except(_told).ToArray())
        {
            channel.Send(FrontEndRequest.AddMemReg, new SingleMemoryRegion(0, Describe(come)), [come.FileDescriptor]);
            _told.Add(come);
        }
    }

    private static unsafe void Replace(MainChannel channel, IReadOnlyList<GuestRegion> regions)
    {
        Span<byte> message = stackalloc byte[sizeof(MemoryTableHead) + (regions.Count * sizeof(MemoryRegion))];
        Span<int> descriptors = stackalloc int[regions.Count];
        MemoryMarshal.Write(message, new MemoryTableHead((uint)regions.Count, 0));
        for (int i = 0; i < regions.Count; i++)
        {
            MemoryMarshal.Write(message[(sizeof(MemoryTableHead) + (i * sizeof(MemoryRegion)))..], Describe(regions[i]));
            descriptors[i] = regions[i].FileDescriptor;
        }
        channel.Send(FrontEndRequest.SetMemTable, message, descriptors);
    }

    private static MemoryRegion Describe(GuestRegion region) =>
        new(region.Start, region.Length, UserAddress(region.Start), region.FileOffset);
}
