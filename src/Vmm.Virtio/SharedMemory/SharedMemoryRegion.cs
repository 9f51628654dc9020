using Vmm.Core.Bus;
using Vmm.Core.Memory;

namespace Vmm.Virtio.SharedMemory;

/// <summary>
/// A range of memory that a device shares with its driver (VIRTIO 1.3 §2.10), found by its id. A transport says where the guest sees it;
/// what is behind it is the device's.
/// </summary>
public abstract class SharedMemoryRegion : IGuestFaultHandler
{
    private const long MillisecondsPerSentence = 10_000;

    // When each kind of trouble was last told; 0 for never.
    private readonly long[] _told = new long[Enum.GetValues<SharedMemoryTrouble>().Length];
    private Action<string>? _log;

    /// <summary>Names a region.</summary>
    /// <param name="id">Its id, unique in the device.</param>
    /// <param name="length">Bytes; a multiple of the page size, above 0.</param>
    protected SharedMemoryRegion(byte id, ulong length)
    {
        ArgumentOutOfRangeException.ThrowIfZero(length);
        Id = id;
        Length = length;
        Counters = new SharedMemoryCounters(id);
    }

    /// <summary>Its id, unique in the device.</summary>
    public byte Id { get; }

    /// <summary>Bytes.</summary>
    public ulong Length { get; }

    /// <summary>Where a transport that may choose puts it, as the machine's layout keeps room there; null for anywhere.</summary>
    public virtual ulong? PreferredAddress => null;

    /// <summary>What happened to it and in it.</summary>
    public SharedMemoryCounters Counters { get; }

    /// <summary>
    /// What answers on the bus in the region's place to accesses that no memory slot takes: offsets are the region's. A transport puts it
    /// there for as long as the region is placed.
    /// </summary>
    public virtual IBusDevice Behind => new UnmappedMemory(this);

    /// <summary>
    /// The guest sees it at an address from now on, and no more where it was before. Called with the transport's lock held; repeating an
    /// address costs nothing.
    /// </summary>
    /// <param name="guestAddress">A multiple of the page size, with no RAM there; null for nowhere (a BAR that is switched off).</param>
    public abstract void Place(ulong? guestAddress);

    /// <inheritdoc/>
    public virtual GuestFaultAnswer Resolve() => GuestFaultAnswer.NotHere;

    /// <inheritdoc/>
    public virtual bool GiveUp() => false;

    /// <summary>Says who takes clauses about what goes wrong in it; a transport does once. They are few, however often it happens.</summary>
    internal void ReportTo(Action<string> log) => _log = log;

    /// <summary>Lets devices use it as memory for buffers from now on, wherever it is. Only for a region behind which nobody can make them wait for ever.</summary>
    internal virtual void ShareWithDevices(GuestMemory memory)
    {
    }

    /// <summary>Whether the guest sees it at <see cref="PreferredAddress"/> now.</summary>
    internal virtual bool IsAtPreferredAddress => false;

    /// <summary>Whether something is mapped at an offset that the guest may read but not write.</summary>
    internal virtual bool IsReadOnly(ulong offset) => false;

    /// <summary>Tells of a trouble, at most once in ten seconds for each kind. Any thread; allocates nothing when it does not tell.</summary>
    internal void Tell(SharedMemoryTrouble trouble)
    {
        long now = Environment.TickCount64;
        ref long told = ref _told[(int)trouble];
        long before = Volatile.Read(ref told);
        if ((before != 0 && now - before < MillisecondsPerSentence) || Interlocked.CompareExchange(ref told, now, before) != before)
            return;
        _log?.Invoke(trouble switch
        {
            SharedMemoryTrouble.HoleRead => $"the guest reads shared memory {Id} where nothing is mapped: it gets ones",
            SharedMemoryTrouble.HoleWrite => $"the guest writes shared memory {Id} where nothing is mapped: that is dropped",
            SharedMemoryTrouble.ReadOnlyWrite => $"the guest writes shared memory {Id} where it may only read: that is dropped",
            SharedMemoryTrouble.GivenUp => $"the host cannot give the guest a page of what is mapped into shared memory {Id}: the guest reaches what is mapped there now by exits, and reads ones where there is nothing",
            SharedMemoryTrouble.Truncated => $"a file behind shared memory {Id} was truncated: the guest reads ones there from now on",
            _ => $"the host does not let the guest reach a part of shared memory {Id} directly: it is slow there",
        });
    }
}
