using Vmm.Core.Events;
using Vmm.Core.Memory;
using Vmm.Virtio.Queues;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Hostile;

/// <summary>
/// Rings as a hostile driver writes them. Wild ones by direct memory writes, mostly right and wrong in any way; each queue has a page then:
/// descriptors at 0, the driver's area at 0x800, the device's at 0xA00. Tame ones by the tests' correct driver, so that hostile requests
/// reach the device in numbers, and what it answers is checked.
/// </summary>
public sealed class HostileRings(GuestMemory memory, int queues, bool mistrusted) : IDisposable
{
    private const ulong Page = 0x1000, DriverArea = 0x800, DeviceArea = 0xA00, Buffers = 0x20000, Tables = 0x38000;
    private const int TablesInFlight = 16;
    private const int Next = 1, Write = 2, Indirect = 4;

    private static readonly ushort[] s_sizes = [1, 2, 4, 8, 16, 32, 64, 128];
    private static readonly uint[] s_lengths = [1, 1, 2, 4, 8, 12, 16, 16, 24, 64, 511, 512, 512, 513, 1024, 4096, 4096, 0x8000];
    private static readonly uint[] s_words = [0, 0, 0, 1, 1, 2, 3, 4, 5, 8, 10, 11, 13, 14, 16, 0xFF, 0x100, 0x200, 0x1000, 0x10000, 0x7FFFFFFF, 0x80000000, uint.MaxValue];
    private static readonly ulong[] s_places =
        [0, 0xFFF, GuardedRam.LowBytes - 1, GuardedRam.LowEnd - 1, GuardedRam.LowEnd, GuardedRam.HighStart - 1, GuardedRam.HighStart, 1UL << 63, ulong.MaxValue - 0xFFF, ulong.MaxValue];

    private readonly EventNotifier[] _doorbells = [.. Enumerable.Range(0, queues).Select(_ => new EventNotifier())];
    private readonly ushort[] _sizes = new ushort[queues];
    private readonly ushort[] _available = new ushort[queues];
    private readonly ushort[] _descriptor = new ushort[queues];
    private readonly bool[] _wrap = new bool[queues];
    private readonly DriverQueue?[] _tame = new DriverQueue?[queues];
    private readonly RecordingHost _nobody = new();
    private GuestArena _arena = null!;
    private RingFeatures _features;
    private long _reaped;

    /// <summary>Wrong in the rings too, not only in what they describe.</summary>
    public bool IsWild { get; private set; }

    private bool IsPacked => _features.Packed;

    /// <summary>The device was reset, and its queues will be set up anew.</summary>
    public void Begin(ulong features, bool wild)
    {
        IsWild = wild;
        _features = RingFeatures.Of(features);
        _arena = new GuestArena(memory, 0, Buffers);
        for (int i = 0; i < queues; i++)
            Forget(i);
    }

    /// <summary>A queue's areas, mostly where they belong.</summary>
    public VirtQueueSetup Setup(ref SeededNumbers numbers, int queue, ushort largest, VirtQueueState? from)
    {
        VirtQueueState state = from ?? VirtQueueState.Initial;
        if (!IsWild)
        {
            bool anew = from == null || _tame[queue] == null;
            if (anew)
                _tame[queue] = Tame(ref numbers, queue, largest);
            _sizes[queue] = _tame[queue]!.Size;
            return _tame[queue]!.Setup(anew ? VirtQueueState.Initial : state) with { Doorbell = _doorbells[queue] };
        }
        _sizes[queue] = Math.Min(numbers.Of<ushort>(s_sizes), largest);
        _available[queue] = state.NextAvailable;
        _descriptor[queue] = (ushort)(IsPacked ? state.NextAvailable : 0);
        _wrap[queue] = state.AvailableWrap;
        ulong page = PageOf(queue);
        var setup = new VirtQueueSetup(queue, _sizes[queue], page, page + DriverArea, page + DeviceArea, state, _doorbells[queue]);
        if (!numbers.OneIn(8))
            return setup;
        ulong place = Place(ref numbers);
        return numbers.Below(4) switch
        {
            0 => setup with { DescriptorArea = place },
            1 => setup with { DriverArea = place },
            2 => setup with { DeviceArea = place },
            _ => setup with { State = new VirtQueueState((ushort)numbers.Next(), (ushort)numbers.Next(), numbers.OneIn(2), numbers.OneIn(2)) },
        };
    }

    /// <summary>The doorbell.</summary>
    public void Ring(int queue) => _doorbells[queue].Signal();

    /// <summary>Makes some chains available.</summary>
    public void Fill(ref SeededNumbers numbers, int queue)
    {
        int size = _sizes[queue];
        if (size == 0 || (!IsWild && _tame[queue] == null))
            return;
        if (!IsWild)
            Reap(queue);
        if (!IsWild && _tame[queue] == null)
            return;
        for (int chains = numbers.Below(numbers.OneIn(8) ? 40 : 6); chains >= 0; chains--)
        {
            int readable = numbers.Below(4), writable = numbers.Below(4);
            if (readable + writable == 0)
                writable = 1;
            int count = Math.Min(readable + writable, size);
            if (!IsWild)
                FillTame(ref numbers, _tame[queue]!, count, readable);
            else if (IsPacked)
                FillPacked(ref numbers, queue, size, count, readable);
            else
                FillSplit(ref numbers, queue, size, count, readable);
        }
    }

    /// <summary>Answers that the correct driver was given.</summary>
    public long Reaped => _reaped;

    /// <summary>Writes what a device may take for a request, or anything, to where buffers are.</summary>
    public void Scribble(ref SeededNumbers numbers)
    {
        ulong at = BufferPlace(ref numbers) & ~3UL;
        for (int words = numbers.Below(32); words >= 0; words--, at += 4)
            _ = memory.TryWrite(at, numbers.OneIn(8) ? (uint)numbers.Next() : numbers.Of<uint>(s_words));
    }

    /// <summary>Asks for interrupts, or not, or something else.</summary>
    public void Suppress(ref SeededNumbers numbers, int queue)
    {
        if (!IsWild)
        {
            if (numbers.OneIn(2))
                _tame[queue]?.EnableInterrupts();
            else
                _tame[queue]?.DisableInterrupts();
            return;
        }
        ulong area = PageOf(queue) + DriverArea;
        ushort value = numbers.OneIn(2) ? (ushort)numbers.Below(4) : (ushort)numbers.Next();
        // Flags, or a packed ring's flags, or a split ring's event index; the middle one is a split ring's own index.
        int which = numbers.Below(IsPacked ? 2 : 3);
        _ = memory.TryWrite(which switch { 0 => area, 1 => area + 2, _ => area + 4 + (2UL * _sizes[queue]) }, value);
    }

    /// <summary>Overwrites something in a queue's page.</summary>
    public void Poke(ref SeededNumbers numbers, int queue)
    {
        ulong page = PageOf(queue);
        ulong near = numbers.Below(3) switch
        {
            0 => page + (ulong)numbers.Below(16 * Math.Max(1, (int)_sizes[queue])),
            1 => page + DriverArea + (ulong)numbers.Below(6 + (2 * _sizes[queue])),
            _ => page + DeviceArea + (ulong)numbers.Below(6 + (8 * _sizes[queue])),
        };
        switch (numbers.Below(4))
        {
            case 0:
                _ = memory.TryWrite(near, (byte)numbers.Next());
                break;
            case 1:
                _ = memory.TryWrite(near & ~1UL, (ushort)numbers.Next());
                break;
            case 2:
                _ = memory.TryWrite(near & ~3UL, numbers.Of<uint>(s_words));
                break;
            default:
                _ = memory.TryWrite(near & ~7UL, Place(ref numbers));
                break;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        for (int i = 0; i < queues; i++)
            Forget(i);
        foreach (EventNotifier doorbell in _doorbells)
            doorbell.Dispose();
    }

    private static ulong PageOf(int queue) => Page * (ulong)(queue % 16);

    private void Reap(int queue)
    {
        try
        {
            while (_tame[queue]!.TryGetUsed(out _))
                _reaped++;
        }
        catch (InvalidOperationException) when (mistrusted)
        {
            Forget(queue);
        }
    }

    private void Forget(int queue)
    {
        _tame[queue]?.Doorbell.Dispose();
        _tame[queue] = null;
        _sizes[queue] = 0;
    }

    private DriverQueue Tame(ref SeededNumbers numbers, int queue, ushort largest)
    {
        // A queue that begins anew keeps its place: areas are not given back to the arena.
        if (_tame[queue] is { } before)
        {
            before.Reset();
            return before;
        }
        ushort size = Math.Min(Math.Min(numbers.Of<ushort>(s_sizes), largest), (ushort)(queues > 8 ? 32 : 128));
        return IsPacked
            ? new PackedDriverQueue(_arena, _nobody, queue, size, _features)
            : new SplitDriverQueue(_arena, _nobody, queue, size, _features);
    }

    private void FillTame(ref SeededNumbers numbers, DriverQueue queue, int count, int readable)
    {
        Span<GuestBuffer> buffers = stackalloc GuestBuffer[count];
        for (int i = 0; i < count; i++)
            buffers[i] = new GuestBuffer(BufferPlace(ref numbers), Length(ref numbers), i >= readable);
        _ = queue.Add(buffers, _features.Indirect && numbers.OneIn(2) && queue.InFlight < TablesInFlight);
    }

    private void FillSplit(ref SeededNumbers numbers, int queue, int size, int count, int readable)
    {
        ulong page = PageOf(queue);
        int first = _descriptor[queue] % size;
        bool table = numbers.OneIn(4);
        if (table)
        {
            ulong address = Table(ref numbers, count, readable, linked: true);
            Put(page, first, address, TableLength(ref numbers, count), Indirect, 0);
            _descriptor[queue]++;
        }
        for (int i = 0; i < count && !table; i++)
        {
            int next = (first + i + 1) % size;
            int flags = Flags(ref numbers, i, count, readable, Next);
            Put(page, (first + i) % size, Address(ref numbers), Length(ref numbers), flags, IsWild && numbers.OneIn(30) ? (ushort)numbers.Next() : next);
            _descriptor[queue]++;
        }
        int head = IsWild && numbers.OneIn(30) ? (ushort)numbers.Next() : first;
        _ = memory.TryWrite(page + DriverArea + 4 + (2UL * (ulong)(_available[queue] % size)), (ushort)head);
        _ = memory.TryWrite(page + DriverArea + 2, ++_available[queue]);
    }

    private void FillPacked(ref SeededNumbers numbers, int queue, int size, int count, int readable)
    {
        ulong page = PageOf(queue);
        int first = _descriptor[queue] % size;
        bool table = numbers.OneIn(4);
        int entries = table ? 1 : count;
        int id = IsWild && numbers.OneIn(30) ? (ushort)numbers.Next() : first;
        int firstFlags = 0;
        for (int i = 0; i < entries; i++)
        {
            int lap = _wrap[queue] ? 1 << 7 : 1 << 15;
            int flags = lap | (table ? Indirect : Flags(ref numbers, i, count, readable, Next));
            ulong address = table ? Table(ref numbers, count, readable, linked: false) : Address(ref numbers);
            uint length = table ? TableLength(ref numbers, count) : Length(ref numbers);
            if (i == 0)
                firstFlags = flags;
            Put(page, _descriptor[queue], address, length, id, i == 0 ? lap ^ 0x8080 : flags);
            if (++_descriptor[queue] >= size)
            {
                _descriptor[queue] = 0;
                _wrap[queue] = !_wrap[queue];
            }
        }
        _ = memory.TryWrite(page + (16UL * (ulong)first) + 14, (ushort)firstFlags);
    }

    private ulong Table(ref SeededNumbers numbers, int count, int readable, bool linked)
    {
        ulong address = Tables + (ulong)numbers.Below(0x8000);
        for (int i = 0; i < count; i++)
        {
            int flags = Flags(ref numbers, i, count, readable, linked ? Next : 0);
            int next = IsWild && numbers.OneIn(30) ? (ushort)numbers.Next() : i + 1;
            Put(address, i, Address(ref numbers), Length(ref numbers), linked ? flags : next, linked ? next : flags);
        }
        return IsWild && numbers.OneIn(50) ? Place(ref numbers) : address;
    }

    private uint TableLength(ref SeededNumbers numbers, int count) =>
        IsWild && numbers.OneIn(30) ? numbers.Of<uint>(s_words) : (uint)count * 16;

    private int Flags(ref SeededNumbers numbers, int i, int count, int readable, int next)
    {
        int flags = (i + 1 < count ? next : 0) | (i >= readable ? Write : 0);
        return IsWild && numbers.OneIn(30) ? flags ^ (1 << numbers.Below(16)) : flags;
    }

    private uint Length(ref SeededNumbers numbers) =>
        IsWild && numbers.OneIn(60) ? numbers.Of<uint>(s_words) : numbers.OneIn(4) ? 1 + (uint)numbers.Below(5000) : numbers.Of<uint>(s_lengths);

    private ulong Address(ref SeededNumbers numbers) => IsWild && numbers.OneIn(60) ? Place(ref numbers) : BufferPlace(ref numbers);

    /// <summary>Where a buffer of up to 0x8000 bytes fits; a few places are shared by many, so that requests are found there.</summary>
    private static ulong BufferPlace(ref SeededNumbers numbers) => numbers.Below(8) switch
    {
        0 => GuardedRam.HighStart + (ulong)numbers.Below(0x8000),
        1 => GuardedRam.LowBytes - (ulong)numbers.Below(0x100),
        2 => Buffers + (ulong)numbers.Below(0x10000),
        _ => Buffers + (64UL * (ulong)numbers.Below(16)),
    };

    private static ulong Place(ref SeededNumbers numbers) =>
        numbers.OneIn(4) ? numbers.Next() : numbers.OneIn(4) ? (ulong)numbers.Below((int)GuardedRam.LowEnd) : numbers.Of<ulong>(s_places);

    private void Put(ulong table, int index, ulong address, uint length, int third, int fourth)
    {
        ulong at = table + (16UL * (ulong)index);
        _ = memory.TryWrite(at, address);
        _ = memory.TryWrite(at + 8, length);
        _ = memory.TryWrite(at + 12, (ushort)third);
        _ = memory.TryWrite(at + 14, (ushort)fourth);
    }
}
