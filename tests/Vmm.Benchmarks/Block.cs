using System.Globalization;
using Vmm.Core.Events;
using Vmm.Core.Interop;
using Vmm.Core.Memory;
using Vmm.Virtio;
using Vmm.Virtio.Devices.Block;
using Vmm.Virtio.Queues;

namespace Vmm.Benchmarks;

/// <summary>
/// Random reads of 4 KiB at depth 32 from a file that is in the page cache, through a split queue with an event index and the block
/// device: doorbell and interrupt are eventfds, as KVM has them. The floor is one thread that calls preadv on the same file.
/// </summary>
internal static unsafe class Block
{
    private const int Depth = 32, BlockSize = 4096, FileSize = 64 << 20, RequestsPerRun = 200_000;

    public static int Run(int rounds)
    {
        string path = Path.Combine(Path.GetTempPath(), $"vmm-benchmark-{Environment.ProcessId}.img");
        try
        {
            byte[] content = new byte[FileSize];
            new Random(1).NextBytes(content);
            File.WriteAllBytes(path, content);
            var rows = new Dictionary<string, List<Row>>();
            for (int round = 0; round <= rounds; round++)
            {
                Take("preadv", Floor(path));
                foreach (BlockEngineKind engine in (BlockEngineKind[])[BlockEngineKind.Sync, BlockEngineKind.IoUring])
                    Take(engine.ToString(), Device(path, engine));

                void Take(string name, Row row)
                {
                    if (!rows.TryGetValue(name, out List<Row>? list))
                        rows[name] = list = [];
                    // The first warms up.
                    if (round > 0)
                        list.Add(row);
                }
            }
            Console.WriteLine($"4 KiB random reads, depth {Depth}, page cache, medians of {rounds} x {RequestsPerRun} requests");
            Console.WriteLine($"{"",-10}{"requests/s",14}{"CPU ns/request",18}{"of preadv",12}{"bytes allocated/request",26}{"interrupts/request",20}");
            bool ok = true;
            double floor = Median(rows["preadv"], r => r.CpuNanoseconds);
            foreach ((string name, List<Row> list) in rows)
            {
                double cpu = Median(list, r => r.CpuNanoseconds);
                long allocated = list.Max(r => r.Allocated);
                ok &= allocated == 0;
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                    $"{name,-10}{Median(list, r => r.PerSecond),14:F0}{cpu,18:F0}{cpu / floor,12:F2}{(double)allocated / RequestsPerRun,26:F3}{Median(list, r => r.Interrupts),20:F3}"));
            }
            Console.WriteLine(ok ? "Allocated by a request: 0 bytes" : "FAILED: a request allocated.");
            return ok ? 0 : 1;
        }
        finally
        {
            File.Delete(path);
        }
    }

    private static Row Floor(string path)
    {
        using var file = new FileDescriptor(LibC.open(path, LibC.O_RDONLY | LibC.O_CLOEXEC, 0));
        byte* buffer = stackalloc byte[BlockSize];
        var iov = new iovec { iov_base = buffer, iov_len = BlockSize };
        var random = new Random(2);
        long began = Time(LibC.CLOCK_MONOTONIC), cpu = Time(LibC.CLOCK_THREAD_CPUTIME_ID);
        for (int i = 0; i < RequestsPerRun; i++)
        {
            if (LibC.preadv2(file.Number, &iov, 1, random.Next(FileSize / BlockSize) * (long)BlockSize, 0) != BlockSize)
                throw new IOException("preadv");
        }
        cpu = Time(LibC.CLOCK_THREAD_CPUTIME_ID) - cpu;
        return new Row(RequestsPerRun * 1e9 / (Time(LibC.CLOCK_MONOTONIC) - began), (double)cpu / RequestsPerRun, 0, 0);
    }

    private static Row Device(string path, BlockEngineKind engine)
    {
        var config = new BlockConfig { Id = "disk0", Path = path, Engine = engine };
        using DiskImage image = DiskImage.Open(config);
        using var loop = new EventLoop("block");
        using var device = new BlockDevice(config, image, [loop]);
        using GuestRam ram = GuestRam.Allocate([(0, 4 << 20)], default);
        using var host = new Interrupt();
        using var doorbell = new EventNotifier();
        device.Activate(new VirtioActivation(VirtioFeatures.Version1 | VirtioFeatures.EventIndex, ram.Memory, host));
        var driver = new Driver(ram.Memory, doorbell, host.Line);
        device.StartQueue(new VirtQueueSetup(0, Driver.QueueSize, Driver.Table, Driver.Available, Driver.Used, VirtQueueState.Initial, doorbell));
        driver.Read(RequestsPerRun / 10);
        long allocated = 0, cpu = 0, interrupts = host.Count;
        loop.Invoke(() => allocated = GC.GetAllocatedBytesForCurrentThread());
        loop.Invoke(() => (allocated, cpu) = (GC.GetAllocatedBytesForCurrentThread(), Time(LibC.CLOCK_THREAD_CPUTIME_ID)));
        long began = Time(LibC.CLOCK_MONOTONIC);
        driver.Read(RequestsPerRun);
        double seconds = (Time(LibC.CLOCK_MONOTONIC) - began) / 1e9;
        loop.Invoke(() => (allocated, cpu) = (GC.GetAllocatedBytesForCurrentThread() - allocated, Time(LibC.CLOCK_THREAD_CPUTIME_ID) - cpu));
        interrupts = host.Count - interrupts;
        device.StopQueue(0);
        return new Row(RequestsPerRun / seconds, (double)cpu / RequestsPerRun, allocated, (double)interrupts / RequestsPerRun);
    }

    private static long Time(int clock)
    {
        timespec time;
        _ = LibC.clock_gettime(clock, &time);
        return (time.tv_sec * 1_000_000_000) + time.tv_nsec;
    }

    private static double Median(List<Row> rows, Func<Row, double> value)
    {
        double[] sorted = [.. rows.Select(value).Order()];
        return sorted[sorted.Length / 2];
    }

    private readonly record struct Row(double PerSecond, double CpuNanoseconds, long Allocated, double Interrupts);

    /// <summary>The driver's side of a split queue whose 32 chains always lie at the same place.</summary>
    private sealed class Driver
    {
        public const ushort QueueSize = 128;
        public const ulong Table = 0x1000, Available = 0x2000, Used = 0x3000;
        private const ulong Requests = 0x10000, Data = 0x100000;

        private readonly byte* _memory;
        private readonly EventNotifier _doorbell;
        private readonly EventNotifier _line;
        private readonly Random _random = new(3);
        private readonly ushort* _availableIndex, _availableRing, _usedEvent, _usedIndex, _availableEvent;
        private readonly uint* _usedRing;
        private ushort _added, _seen, _kicked;

        public Driver(GuestMemory memory, EventNotifier doorbell, EventNotifier line)
        {
            (_doorbell, _line) = (doorbell, line);
            if (!memory.TryGetSpan(0, 4 << 20, out Span<byte> span))
                throw new InvalidOperationException("The guest's memory is too small.");
            // Safe: the memory is mapped as long as the run lasts.
            fixed (byte* start = span)
                _memory = start;
            _availableIndex = (ushort*)(_memory + Available + 2);
            _availableRing = (ushort*)(_memory + Available + 4);
            _usedEvent = _availableRing + QueueSize;
            _usedIndex = (ushort*)(_memory + Used + 2);
            _usedRing = (uint*)(_memory + Used + 4);
            _availableEvent = (ushort*)(_usedRing + (2 * QueueSize));
            for (uint i = 0; i < Depth; i++)
            {
                Descriptor((3 * i) + 0, Requests + (i * 32), 16, 1);
                Descriptor((3 * i) + 1, Data + (i * BlockSize), BlockSize, 3);
                Descriptor((3 * i) + 2, Requests + (i * 32) + 16, 1, 2);
            }
        }

        public void Read(int count)
        {
            int began = 0, ended = 0;
            for (uint i = 0; i < Depth; i++, began++)
                Begin(3 * i);
            Kick();
            while (ended < count)
            {
                // As Linux does: an interrupt for the next one, and a second look before sleeping.
                Volatile.Write(ref *_usedEvent, _seen);
                Interlocked.MemoryBarrier();
                while (Volatile.Read(ref *_usedIndex) == _seen)
                    Sleep();
                while (_seen != Volatile.Read(ref *_usedIndex))
                {
                    uint head = _usedRing[2 * (_seen++ % QueueSize)];
                    if (_memory[Requests + (head / 3 * 32) + 16] != 0)
                        throw new IOException("A request failed.");
                    ended++;
                    if (began < count)
                    {
                        Begin(head);
                        began++;
                    }
                }
                Kick();
            }
        }

        private void Begin(uint head)
        {
            byte* request = _memory + Requests + (head / 3 * 32);
            *(ulong*)request = 0;
            *(ulong*)(request + 8) = (ulong)_random.Next(FileSize / BlockSize) * (BlockSize / 512);
            request[16] = 0xEE;
            _availableRing[_added++ % QueueSize] = (ushort)head;
            Volatile.Write(ref *_availableIndex, _added);
        }

        private void Kick()
        {
            Interlocked.MemoryBarrier();
            if ((ushort)(_added - Volatile.Read(ref *_availableEvent) - 1) < (ushort)(_added - _kicked))
                _doorbell.Signal();
            _kicked = _added;
        }

        private void Sleep()
        {
            var poll = new pollfd { fd = _line.Number, events = LibC.POLLIN };
            _ = LibC.poll(&poll, 1, 1000);
            _line.TryConsume();
        }

        private void Descriptor(uint index, ulong address, uint length, uint flags)
        {
            ulong* descriptor = (ulong*)(_memory + Table + (16 * index));
            descriptor[0] = address;
            descriptor[1] = length | ((ulong)flags << 32) | ((ulong)(index + 1) << 48);
        }
    }

    private sealed class Interrupt : IVirtioHost, IDisposable
    {
        public EventNotifier Line { get; } = new();

        public long Count { get; private set; }

        public void SignalQueue(int queue)
        {
            Count++;
            Line.Signal();
        }

        public void SignalConfigurationChange()
        {
        }

        public void NeedsReset(string reason) => Console.Error.WriteLine(reason);

        public void Dispose() => Line.Dispose();
    }
}
