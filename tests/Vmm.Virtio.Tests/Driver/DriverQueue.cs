using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;
using Vmm.Core.Events;
using Vmm.Core.Memory;
using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Tests.Driver;

/// <summary>
/// The driver's side of a virtqueue, for one thread, as a correct guest would do it (VIRTIO 1.3 §2.7, §2.8). See <see cref="GuestDriver"/>.
/// </summary>
public abstract class DriverQueue
{
    private readonly GuestArena _arena;
    private readonly RecordingHost _host;
    private readonly Dictionary<int, Chain> _chains = [];

    private protected DriverQueue(GuestArena arena, RecordingHost host, int index, ushort size, RingFeatures features)
    {
        _arena = arena;
        _host = host;
        Index = index;
        Size = size;
        Features = features;
    }

    /// <summary>Which queue of the device.</summary>
    public int Index { get; }

    /// <summary>Descriptors.</summary>
    public ushort Size { get; }

    /// <summary>What was negotiated.</summary>
    public RingFeatures Features { get; }

    /// <summary>Rung by <see cref="Kick"/>.</summary>
    public EventNotifier Doorbell { get; } = new(isShared: true);

    /// <summary>Guest address of the descriptor table or ring; the areas are one allocation's.</summary>
    public abstract ulong DescriptorArea { get; }

    /// <summary>Guest address of the available ring, or of the driver's event suppression structure.</summary>
    public abstract ulong DriverArea { get; }

    /// <summary>Guest address of the used ring, or of the device's event suppression structure.</summary>
    public abstract ulong DeviceArea { get; }

    /// <summary>Descriptors that are not in use.</summary>
    public abstract int FreeDescriptors { get; }

    /// <summary>Chains that were added and not returned yet.</summary>
    public int InFlight => _chains.Count;

    /// <summary>Times that <see cref="Kick"/> rang.</summary>
    public int Rings { get; private set; }

    /// <summary>The queue, from a state on.</summary>
    public VirtQueueSetup Setup(VirtQueueState state) => new(Index, Size, DescriptorArea, DriverArea, DeviceArea, state, Doorbell);

    /// <summary>Makes a chain available; the device may see it at once, <see cref="Kick"/> tells it.</summary>
    /// <param name="buffers">Readable ones first.</param>
    /// <param name="indirect">By an indirect table.</param>
    /// <returns>What <see cref="UsedBuffer.Token"/> will be; -1 when there are not enough free descriptors.</returns>
    public int Add(ReadOnlySpan<GuestBuffer> buffers, bool indirect = false)
    {
        ulong table = 0;
        if (indirect)
            table = _arena.Allocate((ulong)buffers.Length * 16);
        int token = indirect
            ? Publish([new GuestBuffer(table, (uint)buffers.Length * 16)], buffers)
            : Publish(buffers, default);
        if (token >= 0)
            _chains.Add(token, new Chain(buffers.ToArray(), table, false));
        else if (indirect)
            _arena.Free(table, (ulong)buffers.Length * 16);
        return token;
    }

    /// <summary>Makes a chain of one readable buffer with some bytes and one writable buffer available, each left out where empty; allocates and frees them.</summary>
    public int Add(ReadOnlySpan<byte> readable, int writable, bool indirect = false)
    {
        var buffers = new List<GuestBuffer>();
        if (!readable.IsEmpty)
        {
            ulong address = _arena.Allocate((ulong)readable.Length);
            _arena.Memory.Write(address, readable);
            buffers.Add(new GuestBuffer(address, (uint)readable.Length));
        }
        if (writable > 0)
            buffers.Add(new GuestBuffer(_arena.Allocate((ulong)writable), (uint)writable, true));
        int token = Add(CollectionsMarshal.AsSpan(buffers), indirect);
        if (token >= 0)
            _chains[token] = _chains[token] with { Owned = true };
        else
            Free(buffers);
        return token;
    }

    /// <summary>Rings the doorbell, if the device wants it for what was added since the last time.</summary>
    public void Kick()
    {
        Interlocked.MemoryBarrier();
        if (IsKickWanted())
        {
            Rings++;
            Doorbell.Signal();
        }
    }

    /// <summary>Takes the next chain that the device gave back, if there is one. Its own buffers are freed: their content is copied first by <see cref="Read"/> of the test, or use <see cref="Transact"/>.</summary>
    public bool TryGetUsed(out UsedBuffer used)
    {
        used = default;
        if (!TryPop(out int token, out uint written))
            return false;
        if (!_chains.Remove(token, out Chain chain))
            throw new InvalidOperationException($"The device gave back id {token}, which was not in flight.");
        ulong room = 0;
        foreach (GuestBuffer buffer in chain.Buffers)
            room += buffer.Writable ? buffer.Length : 0;
        if (written == uint.MaxValue)
            written = (uint)room;
        if (written > room)
            throw new InvalidOperationException($"The device says that it wrote {written} of {room} bytes.");
        if (chain.Table != 0)
            _arena.Free(chain.Table, (ulong)chain.Buffers.Length * 16);
        if (chain.Owned)
            Free(chain.Buffers);
        used = new UsedBuffer(token, written, chain.Buffers);
        return true;
    }

    /// <summary>Asks for an interrupt and waits for the next chain that the device gives back.</summary>
    /// <exception cref="TimeoutException">There was none for 30 seconds, or the device needs a reset.</exception>
    public UsedBuffer WaitUsed()
    {
        UsedBuffer used = default;
        EnableInterrupts();
        _host.WaitUntil(
            () =>
            {
                if (TryGetUsed(out used))
                    return true;
                // It moved with what was used before: an interrupt is wanted for the next one.
                EnableInterrupts();
                return TryGetUsed(out used) || (_host.IsResetNeeded ? throw new TimeoutException(string.Join("; ", _host.ResetReasons)) : false);
            },
            $"a used buffer of queue {Index}");
        return used;
    }

    /// <summary>Adds, kicks and waits for one chain: what the device wrote into the writable part.</summary>
    public byte[] Transact(ReadOnlySpan<byte> readable, int writable, bool indirect = false)
    {
        int token = Add(readable, writable, indirect);
        if (token < 0)
            throw new InvalidOperationException("There are not enough free descriptors.");
        Kick();
        UsedBuffer used = WaitUsed();
        if (used.Token != token)
            throw new InvalidOperationException("Another chain was given back; Transact needs a queue without others in flight.");
        return Read(used);
    }

    /// <summary>What the device wrote into the writable part of a chain, until its memory is allocated again.</summary>
    public byte[] Read(UsedBuffer used)
    {
        byte[] bytes = new byte[used.Written];
        int done = 0;
        foreach (GuestBuffer buffer in used.Buffers)
        {
            int part = Math.Min(bytes.Length - done, (int)buffer.Length);
            if (!buffer.Writable || part == 0)
                continue;
            if (!_arena.Memory.TryRead(buffer.Address, bytes.AsSpan(done, part)))
                throw new InvalidOperationException("A buffer is not in RAM.");
            done += part;
        }
        return bytes;
    }

    /// <summary>Asks for an interrupt for the next chain that is given back. What was given back already may bring none: look after this.</summary>
    public abstract void EnableInterrupts();

    /// <summary>Asks for no interrupts; with an event index one may still come.</summary>
    public abstract void DisableInterrupts();

    /// <summary>Forgets everything, as after a reset of the queue or the device; memory in flight is not given back.</summary>
    public void Reset()
    {
        _chains.Clear();
        Clear();
    }

    /// <summary>Guest memory.</summary>
    protected GuestMemory Memory => _arena.Memory;

    /// <summary>Writes a chain into the ring, and its indirect table if there is one; gives its token.</summary>
    protected abstract int Publish(ReadOnlySpan<GuestBuffer> ring, ReadOnlySpan<GuestBuffer> table);

    /// <summary>Takes the next used chain; a written length of uint.MaxValue stands for all.</summary>
    protected abstract bool TryPop(out int token, out uint written);

    /// <summary>Whether the device wants the doorbell for what was published since the last call.</summary>
    protected abstract bool IsKickWanted();

    /// <summary>Empties the ring.</summary>
    protected abstract void Clear();

    /// <summary>A value in guest memory, shared with the device.</summary>
    protected ref T At<T>(ulong address) where T : unmanaged
    {
        if (!Memory.TryGetSpan(address, Marshal.SizeOf<T>(), out Span<byte> span))
            throw new InvalidOperationException("The ring is not in RAM.");
        return ref MemoryMarshal.AsRef<T>(span);
    }

    private void Free(IEnumerable<GuestBuffer> buffers)
    {
        foreach (GuestBuffer buffer in buffers)
            _arena.Free(buffer.Address, buffer.Length);
    }

    [SuppressMessage("Performance", "CA1815", Justification = "Never compared.")]
    private readonly record struct Chain(GuestBuffer[] Buffers, ulong Table, bool Owned);
}
