namespace Vmm.Virtio.Tests.Driver;

/// <summary>The driver's side of a split virtqueue (VIRTIO 1.3 §2.7).</summary>
public sealed class SplitDriverQueue : DriverQueue
{
    private readonly int[] _next;
    private readonly int[] _lengths;
    private readonly Queue<int> _order = new();
    private int _free, _freeCount;
    private ushort _available, _kicked, _used;
    // VIRTIO_F_IN_ORDER: a batch that was announced by its last buffer, whose earlier ones come first.
    private int _batchLast = -1;
    private uint _batchWritten;

    /// <summary>Lays it out in guest memory.</summary>
    public SplitDriverQueue(GuestArena arena, RecordingHost host, int index, ushort size, RingFeatures features)
        : base(arena, host, index, size, features)
    {
        _next = new int[size];
        _lengths = new int[size];
        DescriptorArea = arena.Allocate(16UL * size);
        DriverArea = arena.Allocate(6 + (2UL * size));
        DeviceArea = arena.Allocate(6 + (8UL * size));
        Clear();
    }

    /// <inheritdoc/>
    public override ulong DescriptorArea { get; }

    /// <inheritdoc/>
    public override ulong DriverArea { get; }

    /// <inheritdoc/>
    public override ulong DeviceArea { get; }

    /// <inheritdoc/>
    public override int FreeDescriptors => _freeCount;

    private ulong UsedEvent => DriverArea + 4 + (2UL * Size);

    private ulong AvailableEvent => DeviceArea + 4 + (8UL * Size);

    /// <inheritdoc/>
    public override void EnableInterrupts()
    {
        if (Features.EventIndex)
            Volatile.Write(ref At<ushort>(UsedEvent), _used);
        else
            Volatile.Write(ref At<ushort>(DriverArea), 0);
        Interlocked.MemoryBarrier();
    }

    /// <inheritdoc/>
    public override void DisableInterrupts()
    {
        if (Features.EventIndex)
            Volatile.Write(ref At<ushort>(UsedEvent), (ushort)(_used - 1));
        else
            Volatile.Write(ref At<ushort>(DriverArea), 1);
    }

    /// <inheritdoc/>
    protected override void Clear()
    {
        Memory.Write(DescriptorArea, new byte[16 * Size]);
        Memory.Write(DriverArea, new byte[6 + (2 * Size)]);
        Memory.Write(DeviceArea, new byte[6 + (8 * Size)]);
        for (int i = 0; i < Size; i++)
            _next[i] = (i + 1) % Size;
        _free = 0;
        _freeCount = Size;
        _available = _kicked = _used = 0;
        _order.Clear();
        _batchLast = -1;
    }

    /// <inheritdoc/>
    protected override int Publish(ReadOnlySpan<GuestBuffer> ring, ReadOnlySpan<GuestBuffer> table)
    {
        if (ring.Length > _freeCount)
            return -1;
        for (int i = 0; i < table.Length; i++)
            Write(ring[0].Address, i, table[i], i + 1 < table.Length, (ushort)(i + 1), false);
        int head = _free;
        int index = head;
        for (int i = 0; i < ring.Length; i++)
        {
            Write(DescriptorArea, index, ring[i], i + 1 < ring.Length, (ushort)_next[index], !table.IsEmpty);
            index = _next[index];
        }
        _free = index;
        _freeCount -= ring.Length;
        _lengths[head] = ring.Length;
        _order.Enqueue(head);
        At<ushort>(DriverArea + 4 + (2UL * (ulong)(_available % Size))) = (ushort)head;
        Volatile.Write(ref At<ushort>(DriverArea + 2), ++_available);
        return head;
    }

    /// <inheritdoc/>
    protected override bool IsKickWanted()
    {
        ushort before = _kicked;
        _kicked = _available;
        return Features.EventIndex
            ? (ushort)(_available - Volatile.Read(ref At<ushort>(AvailableEvent)) - 1) < (ushort)(_available - before)
            : (Volatile.Read(ref At<ushort>(DeviceArea)) & 1) == 0;
    }

    /// <inheritdoc/>
    protected override bool TryPop(out int token, out uint written)
    {
        token = -1;
        written = 0;
        if (_batchLast < 0)
        {
            if (Volatile.Read(ref At<ushort>(DeviceArea + 2)) == _used)
                return false;
            ulong entry = At<ulong>(DeviceArea + 4 + (8UL * (ulong)(_used % Size)));
            if ((uint)entry >= Size)
                throw new InvalidOperationException($"The device used descriptor {(uint)entry}, which is not there.");
            _batchLast = (int)entry;
            _batchWritten = (uint)(entry >> 32);
        }
        token = _batchLast;
        written = _batchWritten;
        if (Features.InOrder && _order.Count > 0 && _order.Peek() != _batchLast)
        {
            // A skipped one: it counts as used whole (§2.7.9).
            token = _order.Peek();
            written = uint.MaxValue;
        }
        else
        {
            _batchLast = -1;
        }
        if (Features.InOrder)
            _ = _order.TryDequeue(out _);
        _used++;
        Recycle(token);
        return true;
    }

    private void Recycle(int head)
    {
        int last = head;
        for (int i = 1; i < _lengths[head]; i++)
            last = _next[last];
        _freeCount += _lengths[head];
        // In order, descriptors are handed out around the table (§2.7.9); else last in, first out.
        if (Features.InOrder)
            return;
        _next[last] = _free;
        _free = head;
    }

    private void Write(ulong table, int index, GuestBuffer buffer, bool more, ushort next, bool indirect)
    {
        ulong at = table + (16UL * (ulong)index);
        At<ulong>(at) = buffer.Address;
        int flags = (more ? 1 : 0) | (buffer.Writable ? 2 : 0) | (indirect ? 4 : 0);
        At<ulong>(at + 8) = buffer.Length | ((ulong)flags << 32) | ((ulong)(more ? next : 0) << 48);
    }
}
