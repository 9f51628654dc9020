using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using Vmm.Core;
using Vmm.Core.Events;
using Vmm.Core.Interop;
using Vmm.Core.Memory;
using Vmm.Virtio;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.Queues;

namespace Vmm.Benchmarks;

/// <summary>
/// The network card on real taps: CPU time and bytes allocated for each frame, of the thread that serves the card, beside a loop that
/// does nothing but the same read or write of the tap. The driver is part of the thread: it refills its ring in the interrupt.
/// </summary>
public sealed unsafe class Net : IDisposable
{
    private const int Burst = 400;

    private static readonly (string Name, int Payload, bool Segmented)[] s_frames =
        [("60 bytes", 46, false), ("1514 bytes", 1500, false), ("60 kB segment", 60_000, true)];

    private readonly string _bridge = $"vmbench{Environment.ProcessId % 10000}";
    private readonly Tap _source;
    private readonly Tap _tap;

    private Net()
    {
        _source = Tap.Open(new NetConfig { Id = "source" });
        _tap = Tap.Open(new NetConfig { Id = "net0" });
        Ip($"link add {_bridge} type bridge mcast_snooping 0");
        Ip($"link set {_source.Name} master {_bridge}");
        Ip($"link set {_tap.Name} master {_bridge}");
        Ip($"link set {_bridge} up");
    }

    /// <summary>Runs it; 1 where something was allocated.</summary>
    public static int Run(int rounds)
    {
        try
        {
            using var bench = new Net();
            Console.WriteLine($"{"frame",-15} {"way",-3} {"frames/s",10} {"ns/frame",9} {"tap alone",10} {"ratio",6} {"allocated/frame",16}");
            bool ok = true;
            foreach ((string name, int payload, bool segmented) in s_frames)
            {
                ok &= bench.Measure(name, Frame(payload, segmented), rounds, receive: false);
                ok &= bench.Measure(name, Frame(payload, segmented), rounds, receive: true);
            }
            Console.WriteLine(ok ? "Allocated by a frame: 0 bytes" : "FAILED: a frame allocated.");
            return ok ? 0 : 1;
        }
        catch (VmmException e)
        {
            Console.Error.WriteLine(e.Message);
            return 1;
        }
    }

    /// <summary>Takes the bridge away and closes the taps.</summary>
    public void Dispose()
    {
        Ip($"link del {_bridge}");
        _source.Dispose();
        _tap.Dispose();
    }

    private bool Measure(string name, byte[] frame, int rounds, bool receive)
    {
        var floors = new List<double>();
        var ours = new List<double>();
        var rates = new List<double>();
        long allocated = 0;
        for (int round = 0; round <= rounds; round++)
        {
            double floor = Floor(frame, receive);
            (double cost, double rate, long bytes) = Card(frame, receive);
            // The first warms up.
            if (round == 0)
                continue;
            floors.Add(floor);
            ours.Add(cost);
            rates.Add(rate);
            allocated += bytes;
        }
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{name,-15} {(receive ? "rx" : "tx"),-3} {Median(rates),10:0} {Median(ours),9:0} {Median(floors),10:0} {Median(ours) / Median(floors),6:0.00} {(double)allocated / rounds / (Burst * BurstsOf(frame)),16:0.000}"));
        return allocated == 0;
    }

    /// <summary>Nanoseconds of CPU for each frame of a loop that only reads or writes the tap.</summary>
    private double Floor(byte[] frame, bool receive)
    {
        // As many buffers as the card's driver has, so that neither has them in its cache when the other has not.
        const int Slot = 2048, Slots = 256;
        byte[] buffer = GC.AllocateArray<byte>((Slots * Slot) + 0x11000, pinned: true);
        frame.CopyTo(buffer, 0);
        _tap.TrySetGuestOffloads(NetFeatures.GuestCsum | NetFeatures.GuestTso4);
        var segment = new GuestSegment((nint)System.Runtime.CompilerServices.Unsafe.AsPointer(ref buffer[0]), (nuint)frame.Length);
        long spent = 0;
        int done = 0;
        int slot = 0;
        using var loop = new EventLoop("floor");
        loop.Invoke(() =>
        {
            for (int burst = 0; burst < BurstsOf(frame); burst++)
            {
                if (receive)
                    Fill(frame);
                long start = ThreadTime();
                for (int i = 0; i < Burst; i++)
                {
                    nint moved;
                    if (receive)
                    {
                        moved = _tap.Ports[0].Receive([new GuestSegment(segment.Host + (slot * Slot), 0x11000)]);
                        slot = (slot + (int)((moved + Slot - 1) / Slot)) % Slots;
                    }
                    else
                    {
                        moved = _tap.Ports[0].Send([segment]);
                    }
                    if (moved > 0)
                        done++;
                }
                spent += ThreadTime() - start;
            }
        });
        return (double)spent / done;
    }

    private (double Cost, double Rate, long Allocated) Card(byte[] frame, bool receive)
    {
        using var loop = new EventLoop("card");
        using var card = new BusyCard(_tap, loop, frame, receive);
        while (_tap.Ports[0].Receive([card.Scratch]) > 0)
        {
            // What the host says by itself, and what is left over.
        }
        return card.Run(() => Fill(frame));
    }

    private void Fill(byte[] frame)
    {
        fixed (byte* start = frame)
        {
            for (int i = 0; i < Burst; i++)
                _source.Ports[0].Send([new GuestSegment((nint)start, (nuint)frame.Length)]);
        }
    }

    /// <summary>A frame to all, of a type that no host takes; or a TCP segment to be cut.</summary>
    private static byte[] Frame(int payload, bool segmented)
    {
        byte[] frame = new byte[12 + 14 + payload];
        frame.AsSpan(12, 6).Fill(0xFF);
        frame[18] = 2;
        frame[24] = segmented ? (byte)8 : (byte)0x88;
        frame[25] = segmented ? (byte)0 : (byte)0xB5;
        if (!segmented)
            return frame;
        ((byte[])[1, 1, 54, 0, 0xA8, 5, 34, 0, 16, 0]).CopyTo(frame, 0);
        frame[26] = 0x45;
        frame[28] = (byte)(payload >> 8);
        frame[29] = (byte)payload;
        frame[34] = 64;
        frame[35] = 6;
        // Hosts may have their bridges look at packets (br_netfilter): the IP header has to be right.
        ((byte[])[198, 19, 255, 1, 198, 19, 255, 2]).CopyTo(frame, 38);
        uint sum = 0;
        for (int i = 26; i < 46; i += 2)
            sum += (uint)((frame[i] << 8) | frame[i + 1]);
        sum = ~((sum & 0xFFFF) + (sum >> 16));
        frame[36] = (byte)(sum >> 8);
        frame[37] = (byte)sum;
        frame[26 + 20 + 12] = 0x50;
        return frame;
    }

    private static int BurstsOf(byte[] frame) => frame.Length > 2048 ? 5 : 50;

    private static double Median(List<double> values) => values.Order().ElementAt(values.Count / 2);

    private static long ThreadTime()
    {
        timespec time;
        _ = LibC.clock_gettime(LibC.CLOCK_THREAD_CPUTIME_ID, &time);
        return (time.tv_sec * 1_000_000_000) + time.tv_nsec;
    }

    private static void Ip(string arguments)
    {
        using Process process = Process.Start("ip", arguments);
        process.WaitForExit();
        if (process.ExitCode != 0)
            throw VmmException.Host($"ip {arguments} failed.");
    }

    /// <summary>A card, and a driver of a split ring that keeps it busy.</summary>
    private sealed class BusyCard : IVirtioHost, IDisposable
    {
        private const int Size = 256;
        private const ulong Table = 0x1000, Available = 0x3000, Used = 0x4000, Buffers = 0x10000;
        private const uint BufferLength = 2048;

        private readonly GuestRam _ram = GuestRam.Allocate([(0, 4 << 20)], default);
        private readonly EventNotifier _doorbell = new();
        private readonly ManualResetEventSlim _done = new();
        private readonly NetDevice _device;
        private readonly EventLoop _loop;
        private readonly bool _receive;
        private readonly int _queue;
        private readonly ushort* _availableIndex;
        private readonly ushort* _usedIndex;
        private readonly bool _merged;
        private readonly int _bursts;
        private ushort _seen;
        private long _frames, _wanted, _finished;

        public BusyCard(Tap tap, EventLoop loop, byte[] frame, bool receive)
        {
            _loop = loop;
            _receive = receive;
            _queue = receive ? 0 : 1;
            _merged = frame.Length > BufferLength;
            _bursts = BurstsOf(frame);
            GuestMemory memory = _ram.Memory;
            for (ushort i = 0; i < Size; i++)
            {
                memory.Write(Table + (i * 16UL), receive ? Buffers + (i * BufferLength) : Buffers);
                memory.Write(Table + (i * 16UL) + 8, receive ? BufferLength : (uint)frame.Length);
                memory.Write(Table + (i * 16UL) + 12, receive ? (ushort)2 : (ushort)0);
                memory.Write(Available + 4 + (i * 2UL), i);
            }
            memory.Write(Buffers, frame);
            memory.TryGetSpan(Available + 2, 2, out Span<byte> available);
            memory.TryGetSpan(Used + 2, 2, out Span<byte> used);
            // Safe: guest memory stays where it is.
            _availableIndex = (ushort*)System.Runtime.CompilerServices.Unsafe.AsPointer(ref MemoryMarshal.GetReference(available));
            _usedIndex = (ushort*)System.Runtime.CompilerServices.Unsafe.AsPointer(ref MemoryMarshal.GetReference(used));
            _device = new NetDevice(new NetConfig { Id = "net0" }, tap, [loop]);
            ulong features = VirtioFeatures.Version1 | NetFeatures.MergeableBuffers | NetFeatures.GuestCsum | NetFeatures.GuestTso4;
            _device.Activate(new VirtioActivation(features, memory, this));
        }

        public GuestSegment Scratch => new(_ram.Memory.Regions[0].HostAddress + (3 << 20), 0x11000);

        public (double Cost, double Rate, long Allocated) Run(Action fill)
        {
            if (_receive)
                *_availableIndex = Size;
            _device.StartQueue(new VirtQueueSetup(_queue, Size, Table, Available, Used, VirtQueueState.Initial, _doorbell));
            long spent = 0, wall = 0, allocated = 0;
            for (int burst = 0; burst <= _bursts; burst++)
            {
                long start = 0, began = 0, before = 0;
                _done.Reset();
                _loop.Invoke(() =>
                {
                    if (_receive)
                        fill();
                    _frames = 0;
                    _wanted = Burst;
                    before = GC.GetAllocatedBytesForCurrentThread();
                    start = ThreadTime();
                    before = GC.GetAllocatedBytesForCurrentThread();
                    began = Stopwatch.GetTimestamp();
                    if (!_receive)
                        Refill();
                });
                if (!_done.Wait(5000))
                    throw VmmException.Host($"Only {_frames} of {_wanted} frames passed.");
                _loop.Invoke(() =>
                {
                    long all = GC.GetAllocatedBytesForCurrentThread() - before;
                    if (burst == 0)
                        return;
                    allocated += all;
                    wall += _finished - began;
                    spent += ThreadTime() - start;
                });
            }
            _device.StopQueue(_queue);
            _device.Reset();
            return ((double)spent / Burst / _bursts, Burst * _bursts / ((double)wall / Stopwatch.Frequency), allocated);
        }

        public void SignalQueue(int queue)
        {
            ushort used = Volatile.Read(ref *_usedIndex);
            // A frame that was cut into several buffers is counted by its first.
            while (_seen != used)
            {
                _frames += !_receive || !_merged ? 1 : Buffered(_seen);
                _seen++;
            }
            if (_receive)
            {
                Volatile.Write(ref *_availableIndex, (ushort)(used + Size));
                Ring();
            }
            else
            {
                Refill();
            }
            if (_frames >= _wanted && _wanted > 0)
            {
                _wanted = 0;
                _finished = Stopwatch.GetTimestamp();
                _done.Set();
            }
        }

        public void SignalConfigurationChange()
        {
        }

        public void NeedsReset(string reason) => throw new InvalidOperationException(reason);

        public void Dispose()
        {
            _device.Dispose();
            _doorbell.Dispose();
            _ram.Dispose();
            _done.Dispose();
        }

        /// <summary>One for a buffer that is filled less than whole: the frame's last.</summary>
        private int Buffered(ushort index)
        {
            _ram.Memory.TryRead(Used + 4 + (((ulong)index % Size) * 8) + 4, out uint written);
            return written < BufferLength ? 1 : 0;
        }

        private void Refill()
        {
            long left = _wanted - _frames - (ushort)(*_availableIndex - _seen);
            int room = Size - (ushort)(*_availableIndex - _seen);
            Volatile.Write(ref *_availableIndex, (ushort)(*_availableIndex + Math.Max(0, Math.Min(left, room))));
            Ring();
        }

        private void Ring()
        {
            Interlocked.MemoryBarrier();
            _ram.Memory.TryRead(Used, out ushort flags);
            if ((flags & 1) == 0)
                _doorbell.Signal();
        }
    }
}
