namespace Vmm.Virtio.Tests.Driver;

/// <summary>The driver's side of a packed virtqueue (VIRTIO 1.3 §2.8).</summary>
public sealed class PackedDriverQueue : DriverQueue
{
    private const uint Avail = 1 << 7, Used = 1 << 15;

    private readonly int[] _lengths;
    private readonly Queue<int> _ids = new();
    private readonly Queue<int> _order = new();
    private int _next, _nextUsed, _free, _added;
    private bool _wrap, _usedWrap;
    private int _batchLast = -1;
    private uint _batchWritten;

    /// <summary>Lays it out in guest memory.</summary>
    public PackedDriverQueue(GuestArena arena, RecordingHost host, int index, ushort size, RingFeatures features)
        : base(arena, host, index, size, features)
    {
        _lengths = new int[size];
        DescriptorArea = arena.Allocate(16UL * size);
        DriverArea = arena.Allocate(4);
        DeviceArea = arena.Allocate(4);
        Clear();
    }

    /// <inheritdoc/>
    public override ulong DescriptorArea { get; }

    /// <inheritdoc/>
    public override ulong DriverArea { get; }

    /// <inheritdoc/>
    public override ulong DeviceArea { get; }

    /// <inheritdoc/>
    public override int FreeDescriptors => _free;

    /// <inheritdoc/>
    public override void EnableInterrupts()
    {
        Volatile.Write(ref At<uint>(DriverArea), Features.EventIndex ? (uint)_nextUsed | (_usedWrap ? Used : 0) | (2 << 16) : 0);
        Interlocked.MemoryBarrier();
    }

    /// <inheritdoc/>
    public override void DisableInterrupts() => Volatile.Write(ref At<uint>(DriverArea), 1 << 16);

    /// <inheritdoc/>
    protected override void Clear()
    {
        Memory.Write(DescriptorArea, new byte[16 * Size]);
        Memory.Write(DriverArea, 0u);
        Memory.Write(DeviceArea, 0u);
        _ids.Clear();
        for (int i = 0; i < Size; i++)
            _ids.Enqueue(i);
        _order.Clear();
        _next = _nextUsed = _added = 0;
        _free = Size;
        _wrap = _usedWrap = true;
        _batchLast = -1;
    }

    /// <inheritdoc/>
    protected override int Publish(ReadOnlySpan<GuestBuffer> ring, ReadOnlySpan<GuestBuffer> table)
    {
        if (ring.Length > _free)
            return -1;
        for (int i = 0; i < table.Length; i++)
        {
            At<ulong>(ring[0].Address + (16UL * (ulong)i)) = table[i].Address;
            At<ulong>(ring[0].Address + (16UL * (ulong)i) + 8) = table[i].Length | ((table[i].Writable ? 2UL : 0) << 48);
        }
        int id = _ids.Dequeue();
        _lengths[id] = ring.Length;
        int head = _next;
        ulong headHalf = 0;
        for (int i = 0; i < ring.Length; i++)
        {
            uint flags = (ring[i].Writable ? 2u : 0) | (i + 1 < ring.Length ? 1u : 0) | (table.IsEmpty ? 0u : 4u) | (_wrap ? Avail : Used);
            ulong half = ring[i].Length | ((ulong)id << 32) | ((ulong)flags << 48);
            ulong at = DescriptorArea + (16UL * (ulong)_next);
            At<ulong>(at) = ring[i].Address;
            if (i == 0)
                headHalf = half;
            else
                At<ulong>(at + 8) = half;
            if (++_next == Size)
            {
                _next = 0;
                _wrap = !_wrap;
            }
        }
        // The first one's flags show the whole chain.
        Volatile.Write(ref At<ulong>(DescriptorArea + (16UL * (ulong)head) + 8), headHalf);
        _free -= ring.Length;
        _added += ring.Length;
        _order.Enqueue(id);
        return id;
    }

    /// <inheritdoc/>
    protected override bool IsKickWanted()
    {
        int added = _added;
        _added = 0;
        uint suppression = Volatile.Read(ref At<uint>(DeviceArea));
        uint wish = suppression >> 16;
        if (wish != 2)
            return wish == 0;
        int wanted = (int)(suppression & 0x7FFF);
        if ((suppression & Used) != 0 != _wrap)
            wanted -= Size;
        int distance = _next - wanted - 1;
        // The same place comes again every other lap, which counts when more than one lap was added at once.
        return (distance < 0 ? distance + (2 * Size) : distance) < added;
    }

    /// <inheritdoc/>
    protected override bool TryPop(out int token, out uint written)
    {
        token = -1;
        written = 0;
        if (_batchLast < 0)
        {
            ulong half = Volatile.Read(ref At<ulong>(DescriptorArea + (16UL * (ulong)_nextUsed) + 8));
            uint flags = (uint)(half >> 48);
            if ((flags & Avail) != 0 != _usedWrap || (flags & Used) != 0 != _usedWrap)
                return false;
            if ((ushort)(half >> 32) >= Size)
                throw new InvalidOperationException($"The device used buffer {(ushort)(half >> 32)}, which is not there.");
            _batchLast = (ushort)(half >> 32);
            // The length counts only where something was written (§2.8.5).
            _batchWritten = (flags & 2) != 0 ? (uint)half : 0;
        }
        token = _batchLast;
        written = _batchWritten;
        if (Features.InOrder && _order.Count > 0 && _order.Peek() != _batchLast)
        {
            token = _order.Peek();
            written = uint.MaxValue;
        }
        else
        {
            _batchLast = -1;
        }
        if (Features.InOrder)
            _ = _order.TryDequeue(out _);
        _nextUsed += _lengths[token];
        if (_nextUsed >= Size)
        {
            _nextUsed -= Size;
            _usedWrap = !_usedWrap;
        }
        _free += _lengths[token];
        _ids.Enqueue(token);
        return true;
    }
}
