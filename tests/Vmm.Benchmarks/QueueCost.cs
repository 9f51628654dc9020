using System.Diagnostics;
using Vmm.Core.Events;
using Vmm.Core.Memory;
using Vmm.Virtio;
using Vmm.Virtio.Queues;

namespace Vmm.Benchmarks;

/// <summary>
/// What a virtqueue costs by itself: take, give back and flush of a block read's chain (16 bytes readable, 4096 and 1 writable), for
/// each layout, directly and by an indirect table, one and 32 to a flush. Must allocate nothing.
/// </summary>
internal static unsafe class QueueCost
{
    private const ushort Size = 256;
    private const int Rounds = 21, RequestsPerRound = 64 * 1024;
    private const ulong Descriptors = 0x1000, DriverArea = 0x3000, DeviceArea = 0x4000, Tables = 0x10000, Data = 0x20000;
    private const ushort Next = 1, Write = 2, Indirect = 4;

    /// <summary>Runs it; 1 where something was allocated.</summary>
    public static int Run()
    {
        Console.WriteLine($"{"layout",-8} {"event index",-12} {"descriptors",-12} {"per flush",9} {"ns/request",11} {"best",7} {"bytes/request",14}");
        long allocated = 0;
        foreach (bool packed in (bool[])[false, true])
        {
            foreach (bool events in (bool[])[false, true])
            {
                foreach (bool indirect in (bool[])[false, true])
                {
                    foreach (int batch in (int[])[1, 32])
                        allocated += Measure(packed, events, indirect, batch);
                }
            }
        }
        Console.WriteLine(allocated == 0 ? "Allocated by a request: 0 bytes" : "FAILED: a request allocated.");
        return allocated == 0 ? 0 : 1;
    }

    private static long Measure(bool packed, bool events, bool indirect, int batch)
    {
        using GuestRam ram = GuestRam.Allocate([(0, 1 << 20)], default);
        using var doorbell = new EventNotifier();
        ulong features = VirtioFeatures.Version1 | (packed ? VirtioFeatures.RingPacked : 0) | (events ? VirtioFeatures.EventIndex : 0)
            | (indirect ? VirtioFeatures.IndirectDescriptors : 0);
        var setup = new VirtQueueSetup(0, Size, Descriptors, DriverArea, DeviceArea, VirtQueueState.Initial, doorbell);
        if (!VirtQueue.TryCreate(setup, new VirtioActivation(features, ram.Memory, new Nobody()), new QueueCounters(0), out VirtQueue? queue, out string? problem))
            throw new InvalidOperationException(problem);
        var driver = new Driver(ram.Memory.Regions[0].Host, packed, indirect);
        double[] times = new double[Rounds];
        long allocated = 0;
        for (int round = -3; round < Rounds; round++)
        {
            long ticks = 0;
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int done = 0; done < RequestsPerRound; done += batch)
            {
                for (int i = 0; i < batch; i++)
                    driver.Add();
                long started = Stopwatch.GetTimestamp();
                int taken = 0;
                while (queue.TryTake(out DescriptorChain? chain))
                {
                    queue.GiveBack(chain, 4097);
                    taken++;
                }
                queue.Flush();
                ticks += Stopwatch.GetTimestamp() - started;
                if (taken != batch)
                    throw new InvalidOperationException($"{taken} of {batch} chains were taken.");
            }
            // The first rounds fill the pool and compile the code.
            if (round < 0)
                continue;
            allocated += GC.GetAllocatedBytesForCurrentThread() - before;
            times[round] = ticks * 1e9 / Stopwatch.Frequency / RequestsPerRound;
        }
        Array.Sort(times);
        Console.WriteLine($"{(packed ? "packed" : "split"),-8} {(events ? "yes" : "no"),-12} {(indirect ? "indirect" : "direct"),-12} {batch,9} " +
            $"{times[Rounds / 2],11:F1} {times[0],7:F1} {(double)allocated / Rounds / RequestsPerRound,14:F3}");
        return allocated;
    }

    /// <summary>A driver that writes no more than it must: its descriptors stay, where the layout lets them.</summary>
    private sealed class Driver(byte* ram, bool packed, bool indirect)
    {
        private readonly int _entries = indirect ? 1 : 3;
        private int _next;
        private bool _wrap = true;
        private ushort _available;

        public void Add()
        {
            if (packed)
                AddPacked();
            else
                AddSplit();
        }

        private static (ulong Address, uint Length, ushort Flags) Part(int i) => i switch
        {
            0 => (Data, 16, Next),
            1 => (Data + 0x1000, 4096, Next | Write),
            _ => (Data + 0x8000, 1, Write),
        };

        private void AddSplit()
        {
            int head = _next;
            for (int i = 0; i < 3; i++)
            {
                (ulong address, uint length, ushort flags) = Part(i);
                if (indirect)
                    Put(Tables, i, address, length, flags, (ushort)(i + 1));
                else
                    Put(Descriptors, (head + i) % Size, address, length, flags, (ushort)((head + i + 1) % Size));
            }
            if (indirect)
                Put(Descriptors, head, Tables, 48, Indirect, 0);
            _next = (head + _entries) % Size;
            ((ushort*)(ram + DriverArea))[2 + (_available % Size)] = (ushort)head;
            Volatile.Write(ref ((ushort*)(ram + DriverArea))[1], ++_available);
        }

        private void AddPacked()
        {
            ushort id = (ushort)_next;
            for (int i = 0; i < 3 && indirect; i++)
            {
                (ulong address, uint length, ushort flags) = Part(i);
                Put(Tables, i, address, length, 0, (ushort)(flags & Write));
            }
            for (int i = 0; i < _entries; i++)
            {
                (ulong address, uint length, ushort flags) = indirect ? (Tables, 48, Indirect) : Part(i);
                Put(Descriptors, _next, address, length, id, (ushort)(flags | (_wrap ? 1 << 7 : 1 << 15)));
                if (++_next < Size)
                    continue;
                _next = 0;
                _wrap = !_wrap;
            }
        }

        // Safe: all of it lies in the RAM that the caller keeps.
        private void Put(ulong table, int index, ulong address, uint length, ushort third, ushort fourth)
        {
            byte* at = ram + table + (16 * index);
            *(ulong*)at = address;
            *(ulong*)(at + 8) = length | ((ulong)third << 32) | ((ulong)fourth << 48);
        }
    }

    private sealed class Nobody : IVirtioHost
    {
        public void SignalQueue(int queue)
        {
        }

        public void SignalConfigurationChange()
        {
        }

        public void NeedsReset(string reason) => throw new InvalidOperationException(reason);
    }
}
