using System.Globalization;
using System.Runtime.InteropServices;
using Vmm.Core.Memory;
using Vmm.Virtio.Queues;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Queues;

/// <summary>
/// A queue without a device, in 1 MiB of RAM at 0 and two ranges of a page at 4 GiB that touch in the guest but not in this process. Its
/// areas are at 0x1000 (descriptors), 0x2000 (driver) and 0x3000 (device).
/// </summary>
internal sealed class QueueRig : IDisposable
{
    public const ulong Descriptors = 0x1000, Driver = 0x2000, Device = 0x3000, Data = 0x10000;

    /// <summary>Two pages, in two RAM ranges.</summary>
    public const ulong Touching = 1UL << 32;

    private readonly GuestRam _ram = GuestRam.Allocate([(0, 1 << 20), (Touching + 0x1000, 0x1000), (1UL << 33, 0x1000), (Touching, 0x1000)], default);
    private readonly Core.Events.EventNotifier _doorbell = new();

    public QueueRig(RingFeatures features = default, ushort size = 4, VirtQueueState? state = null)
    {
        Features = features;
        Size = size;
        Open(state ?? VirtQueueState.Initial);
    }

    public RingFeatures Features { get; }

    public ushort Size { get; }

    public GuestMemory Memory => _ram.Memory;

    public RecordingHost Host { get; } = new();

    public QueueCounters Counters { get; } = new(0);

    public VirtQueue Queue { get; private set; } = null!;

    public int Interrupts => Host.Interrupts(0);

    public VirtQueueSetup Setup(VirtQueueState state) => new(0, Size, Descriptors, Driver, Device, state, _doorbell);

    public bool TryCreate(in VirtQueueSetup setup, out VirtQueue? queue, out string? problem) =>
        VirtQueue.TryCreate(setup, new VirtioActivation(Features.Bits, Memory, Host), Counters, out queue, out problem);

    /// <summary>Begins anew from a state, with the memory as it is.</summary>
    public void Open(VirtQueueState state)
    {
        Assert.True(TryCreate(Setup(state), out VirtQueue? queue, out string? problem), problem);
        Queue = queue!;
    }

    /// <summary>Writes bytes given in hexadecimal, in the order of their addresses.</summary>
    public void Poke(ulong address, string hex) => Memory.Write(address, Convert.FromHexString(hex.Replace(" ", "", StringComparison.Ordinal)));

    public void Poke16(ulong address, int value) => Memory.Write(address, (ushort)value);

    /// <summary>Bytes in hexadecimal, in groups of 4 bytes.</summary>
    public string Peek(ulong address, int length)
    {
        Assert.True(Memory.TryGetSpan(address, length, out Span<byte> span));
        return string.Join(' ', span.ToArray().Chunk(4).Select(c => Convert.ToHexString(c).ToLower(CultureInfo.InvariantCulture)));
    }

    /// <summary>Writes a descriptor: of a split table or ring by the order of its last two fields.</summary>
    public void Descriptor(ulong table, int index, ulong address, uint length, int third, int fourth)
    {
        ulong at = table + (16UL * (ulong)index);
        Memory.Write(at, address);
        Memory.Write(at + 8, length);
        Memory.Write(at + 12, (ushort)third);
        Memory.Write(at + 14, (ushort)fourth);
    }

    /// <summary>Split: a descriptor of the table.</summary>
    public void Split(int index, ulong address, uint length, int flags, int next = 0) => Descriptor(Descriptors, index, address, length, flags, next);

    /// <summary>Split: makes heads available, from an index on.</summary>
    public void Available(int from, params int[] heads)
    {
        for (int i = 0; i < heads.Length; i++)
            Poke16(Driver + 4 + (2UL * (ulong)((from + i) % Size)), heads[i]);
        Poke16(Driver + 2, from + heads.Length);
    }

    /// <summary>Packed: a descriptor of the ring.</summary>
    public void Packed(int index, ulong address, uint length, int id, int flags) => Descriptor(Descriptors, index, address, length, id, flags);

    public DescriptorChain Take()
    {
        Assert.True(Queue.TryTake(out DescriptorChain? chain), string.Join("; ", Host.ResetReasons));
        return chain!;
    }

    /// <summary>Takes, and expects the queue to break for a reason that contains some words; it must stay broken and silent.</summary>
    public void ExpectBreak(string words)
    {
        Assert.False(Queue.TryTake(out _));
        Assert.True(Queue.IsBroken);
        Assert.Contains(words, Assert.Single(Host.ResetReasons), StringComparison.Ordinal);
        Assert.False(Queue.TryTake(out _));
        Assert.False(Queue.HasAvailable);
        Assert.False(Queue.RequestNotifications());
        Queue.SuppressNotifications();
        Queue.Flush();
        Assert.Single(Host.ResetReasons);
    }

    public nint HostAddress(ulong address)
    {
        Assert.True(Memory.TryGetSpan(address, 1, out Span<byte> span));
        unsafe
        {
            return (nint)System.Runtime.CompilerServices.Unsafe.AsPointer(ref MemoryMarshal.GetReference(span));
        }
    }

    public void Dispose()
    {
        _doorbell.Dispose();
        _ram.Dispose();
    }
}
