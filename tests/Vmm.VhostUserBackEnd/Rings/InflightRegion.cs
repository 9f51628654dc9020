using Vmm.Core.Interop;
using Vmm.VhostUserBackEnd.Protocol;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd.Rings;

/// <summary>
/// The buffer of GET_INFLIGHT_FD and SET_INFLIGHT_FD, in the layout that vhost-user.rst gives for split rings ("Inflight I/O tracking"). It
/// outlives the process: the one that comes after it learns from it what was taken from a ring and not given back.
/// </summary>
public sealed unsafe class InflightRegion
{
    private const int HeaderLength = 16;
    private const int EntryLength = 16;
    private const int Alignment = 64;

    private readonly HostMapping _mapping;
    private readonly InflightDescription _description;

    private InflightRegion(HostMapping mapping, InflightDescription description)
    {
        _mapping = mapping;
        _description = description;
    }

    public InflightDescription Description => _description;

    /// <summary>How many bytes the buffer for so many queues of so many descriptors has.</summary>
    public static ulong SizeOf(ushort queues, ushort queueSize) => (ulong)queues * RegionLength(queueSize);

    internal static InflightRegion? TryMap(InflightDescription description, FileDescriptor file)
    {
        ulong length = description.MmapSize + description.MmapOffset;
        if (description.MmapSize < SizeOf(description.NumQueues, description.QueueSize) || length < description.MmapSize || length > int.MaxValue)
            return null;
        HostMapping? mapping = HostMapping.TryMap((nuint)length, PROT_READ | PROT_WRITE, MAP_SHARED, file.Number);
        return mapping == null ? null : new InflightRegion(mapping, description);
    }

    internal InflightQueue? Queue(int index)
    {
        if (index >= _description.NumQueues)
            return null;
        return new InflightQueue(_mapping, _mapping.Address + _description.MmapOffset + ((ulong)index * RegionLength(_description.QueueSize)), _description.QueueSize);
    }

    internal void Close() => _mapping.Dispose();

    private static ulong RegionLength(ushort queueSize) => (HeaderLength + ((ulong)queueSize * EntryLength) + Alignment - 1) & ~(ulong)(Alignment - 1);

    /// <summary>
    /// One queue's part: features u64, version u16, desc_num u16, last_batch_head u16, used_idx u16, then for each descriptor inflight u8,
    /// padding u8[5], next u16, counter u64.
    /// </summary>
    internal sealed class InflightQueue
    {
        private readonly HostMapping _mapping;
        private readonly byte* _start;
        private readonly int _size;
        private ulong _counter;

        internal InflightQueue(HostMapping mapping, byte* start, int size)
        {
            _mapping = mapping;
            _start = start;
            _size = size;
        }

        private ref ushort Version => ref *(ushort*)(_start + 8);

        private ref ushort DescriptorCount => ref *(ushort*)(_start + 10);

        private ref ushort LastBatchHead => ref *(ushort*)(_start + 12);

        private ref ushort UsedIndex => ref *(ushort*)(_start + 14);

        /// <summary>Brings the buffer in line with the used ring, and tells what has to be served again, in the order in which it was taken.</summary>
        internal List<ushort> Recover(ushort usedIndex)
        {
            var again = new List<(ulong Counter, ushort Head)>();
            using var hold = new Hold(_mapping);
            if (!hold.Held)
                return [];
            if (Version == 0)
            {
                // Never used before.
                Version = 1;
                DescriptorCount = (ushort)_size;
                UsedIndex = usedIndex;
                return [];
            }
            // What the predecessor gave back last may not have been taken off its list any more.
            int batch = Math.Min((ushort)(usedIndex - UsedIndex), _size);
            ushort head = LastBatchHead;
            for (int i = 0; i < batch && head < _size; i++)
            {
                *Entry(head) = 0;
                head = *(ushort*)(Entry(head) + 6);
            }
            Thread.MemoryBarrier();
            UsedIndex = usedIndex;
            for (int i = 0; i < _size; i++)
            {
                byte* entry = Entry(i);
                if (*entry == 0)
                    continue;
                ulong counter = *(ulong*)(entry + 8);
                again.Add((counter, (ushort)i));
                _counter = Math.Max(_counter, counter + 1);
            }
            again.Sort();
            var heads = new List<ushort>(again.Count);
            foreach ((_, ushort taken) in again)
                heads.Add(taken);
            return heads;
        }

        internal void Taken(ushort head)
        {
            using var hold = new Hold(_mapping);
            if (!hold.Held || head >= _size)
                return;
            byte* entry = Entry(head);
            *(ulong*)(entry + 8) = _counter++;
            Thread.MemoryBarrier();
            Volatile.Write(ref *entry, 1);
        }

        /// <summary>Before the used ring's index moves.</summary>
        internal void BeforeUsed(ushort head)
        {
            using var hold = new Hold(_mapping);
            if (!hold.Held || head >= _size)
                return;
            *(ushort*)(Entry(head) + 6) = LastBatchHead;
            Volatile.Write(ref LastBatchHead, head);
            Thread.MemoryBarrier();
        }

        /// <summary>After the used ring's index has moved.</summary>
        internal void AfterUsed(ushort head, ushort usedIndex)
        {
            using var hold = new Hold(_mapping);
            if (!hold.Held || head >= _size)
                return;
            Thread.MemoryBarrier();
            Volatile.Write(ref *Entry(head), 0);
            Thread.MemoryBarrier();
            Volatile.Write(ref UsedIndex, usedIndex);
        }

        private byte* Entry(int head) => _start + HeaderLength + (head * EntryLength);
    }

    /// <summary>Keeps a mapping for the length of a block.</summary>
    private readonly ref struct Hold
    {
        private readonly HostMapping _mapping;

        internal Hold(HostMapping mapping)
        {
            _mapping = mapping;
            bool held = false;
            try
            {
                mapping.DangerousAddRef(ref held);
            }
            catch (ObjectDisposedException)
            {
                // The connection has ended.
            }
            Held = held;
        }

        internal bool Held { get; }

        public void Dispose()
        {
            if (Held)
                _mapping.DangerousRelease();
        }
    }
}
