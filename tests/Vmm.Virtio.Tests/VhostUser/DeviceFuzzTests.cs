using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Core.Sockets;
using Vmm.VhostUserBackEnd;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.SharedMemory;
using Vmm.Virtio.Tests.Devices.Pmem;
using Vmm.Virtio.Tests.Driver;
using Vmm.Virtio.VhostUser;
using Vmm.Virtio.VhostUser.Gpu;
using Vmm.Virtio.VhostUser.Protocol;
using Xunit.Abstractions;
using FrontEnd = Vmm.Virtio.VhostUser.VhostUserBackEnd;

namespace Vmm.Virtio.Tests.VhostUser;

/// <summary>
/// Devices of each type whose back-end is nearly right on both channels, while a driver starts, uses and resets them, and their state is saved:
/// some answers are wrong, requests of all kinds come at any time, and to a graphics card's display too. VMM_TEST_VHOST_USER_MESSAGES says how many
/// of them, VMM_TEST_VHOST_USER_SEED from which seed; scripts/soak messages sends millions.
/// </summary>
[Collection(nameof(MessageFuzzTests))]
public sealed class DeviceFuzzTests(ITestOutputHelper output)
{
    private const int WarmUp = 20;

    private static readonly long s_messages = RandomMessages.Number("VMM_TEST_VHOST_USER_MESSAGES", 20_000);
    private static readonly int s_seed = (int)RandomMessages.Number("VMM_TEST_VHOST_USER_SEED", 20261121);
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    public static TheoryData<string> Types => [.. s_types.Keys];

    private static readonly Dictionary<string, VhostUserSettings> s_types = new()
    {
        ["fs"] = Settings(VirtioDeviceType.FileSystem, 128, 128) with { Configuration = new byte[44] },
        ["block"] = Settings(VirtioDeviceType.Block, 128, 128) with { ConfigurationLength = 60, ConfigurationOverlay = [(34, [2, 0])] },
        ["net"] = Settings(VirtioDeviceType.Network, 128, 128, 128, 128) with
        {
            Configuration = [2, 0, 0, 0, 0, 1, 1, 0, 2, 0, 0, 0],
            HasControlQueue = true,
            Mtu = 1400,
            OwnFeatures = NetFeatures.Mac | NetFeatures.Status | NetFeatures.CtrlVq | NetFeatures.CtrlRx | NetFeatures.MultiQueue | NetFeatures.CtrlMacAddr,
        },
        ["vsock"] = Settings(VirtioDeviceType.Socket, 128, 128, 128) with { ConfigurationLength = 8 },
        ["gpu"] = Settings(VirtioDeviceType.Gpu, 256, 16) with { ConfigurationLength = 16, Display = new DisplaySettings { Reply = 20 } },
        ["42"] = Settings((VirtioDeviceType)42, 64) with { ConfigurationLength = 8 },
    };

    [Theory]
    [MemberData(nameof(Types))]
    public void A_device_outlives_whatever_its_back_end_sends(string type)
    {
        var totals = new Totals();
        var random = new Random(s_seed);
        using var descriptors = new AnyDescriptors();
        (int Files, int Threads) before = default;
        (long Mappings, long Memory) room = default, middle = default;
        Exception? failure = null;
        var cases = new Thread(() =>
        {
            try
            {
                while (totals.Sent < s_messages || totals.Cases < 2 * WarmUp)
                {
                    Case(s_types[type], new Random(random.Next()), totals, descriptors);
                    if (Interlocked.Increment(ref totals.Cases) == WarmUp)
                        (before, room) = (RandomMessages.Leaks(), Room());
                    if (middle == default && totals.Cases > WarmUp && totals.Sent >= s_messages / 2)
                        middle = Room();
                }
            }
            catch (Exception e)
            {
                failure = e;
            }
        });
        cases.Start();
        // Everything has a deadline, so nothing stands still for long.
        for (long last = -1; !cases.Join(s_patience); last = Volatile.Read(ref totals.Cases))
            Assert.True(last != Volatile.Read(ref totals.Cases), $"Seed {s_seed}: nothing has come to an end for {s_patience.TotalSeconds} s after {last} devices.");
        Assert.True(failure == null, $"Seed {s_seed}, device {totals.Cases}: {failure}");
        (int Files, int Threads) after = RandomMessages.Leaks();
        (long Mappings, long Memory) then = Room();
        output.WriteLine($"{type}, seed {s_seed}: {totals} descriptors {before.Files} -> {after.Files}, threads {before.Threads} -> {after.Threads}, mappings of the process {room.Mappings} -> {then.Mappings}, memory {room.Memory >> 10} -> {middle.Memory >> 10} -> {then.Memory >> 10} KiB");
        Assert.InRange(after.Files, 0, before.Files + 8);
        Assert.InRange(after.Threads, 0, before.Threads + 8);
        Assert.InRange(then.Mappings, 0, room.Mappings + 200);
        Assert.InRange(then.Memory, 0, room.Memory + (64 << 20));
        // What grows at the beginning is no leak; that would go on in the same way.
        Assert.InRange(then.Memory, 0, middle.Memory + (32 << 20));
        Assert.True(totals.Served > 0 && totals.Maps > 0 && totals.Losses > 0, "Some are right, some are wrong.");
    }

    private static VhostUserSettings Settings(VirtioDeviceType type, params ushort[] queueSizes) => new()
    {
        Id = "fuzz",
        Socket = "",
        Type = type,
        QueueSizes = queueSizes,
        Reconnect = 1,
        Timeouts = new VhostUserTimeouts(Request: 20, Stop: 50, Retry: 1, ConfigurationReads: 1) { BackEndReply = 50, Operation = 1_000 },
    };

    private static void Case(VhostUserSettings settings, Random random, Totals totals, AnyDescriptors descriptors)
    {
        var log = new ConcurrentQueue<string>();
        var peers = new ConcurrentQueue<Peer>();
        int seed = random.Next();
        UnixStream Connect()
        {
            (UnixStream ours, UnixStream theirs) = UnixStream.CreatePair();
            peers.Enqueue(new Peer(theirs, settings.ConfigurationLength, new Random(Interlocked.Increment(ref seed)), totals, descriptors));
            return ours;
        }

        try
        {
            using FrontEnd backEnd = FrontEnd.Open(settings, log.Enqueue, 1_000, Connect);
            Use(backEnd, random, totals);
            totals.Add(backEnd);
        }
        catch (VmmException e)
        {
            // It cannot be that device, as it said at the beginning.
            Assert.DoesNotContain('\n', e.Message);
            Assert.DoesNotContain("defect", e.Message, StringComparison.Ordinal);
        }
        finally
        {
            foreach (Peer peer in peers)
                peer.Dispose();
        }
        foreach (string line in log)
        {
            Assert.DoesNotContain('\n', line);
            Assert.DoesNotContain("defect", line, StringComparison.Ordinal);
        }
    }

    private static void Use(FrontEnd backEnd, Random random, Totals totals)
    {
        var slots = new FakeSlots();
        using var device = new VhostUserDevice(backEnd, slots, SharedMemoryQuota.ForMachine().ForDevice(64));
        foreach (SharedMemoryRegion region in device.SharedMemory)
            region.Place((1UL << 40) + ((ulong)region.Id << 36));
        using var driver = new GuestDriver(device, RingFeatures.Of(0), ~VirtioFeatures.AllQueues, ramBytes: 4 << 20);
        bool started = false;
        for (int i = random.Next(1, 40); i > 0; i--)
        {
            switch (random.Next(12))
            {
                case 0:
                case 1:
                case 2:
                    if (!started)
                        driver.Start();
                    started = true;
                    break;
                case 3:
                    if (started)
                        driver.Restart();
                    break;
                case 4:
                    driver.Reset();
                    started = false;
                    break;
                case 5:
                    byte[] read = new byte[random.Next(1, 5)];
                    if (device.ConfigurationLength >= read.Length)
                        device.ReadConfiguration(random.Next(device.ConfigurationLength - read.Length + 1), read);
                    break;
                case 6:
                    if (device.ConfigurationLength >= 4)
                        device.WriteConfiguration(random.Next(device.ConfigurationLength - 3), [1, 2, 3, 4]);
                    break;
                case 7:
                    // To a control queue this is no command.
                    DriverQueue queue = driver.Queues[random.Next(driver.Queues.Length)];
                    if (started && queue.Add([4, 0, (byte)random.Next(4), 0], writable: 1) >= 0)
                        queue.Kick();
                    break;
                case 8:
                    Move(backEnd, driver, started);
                    break;
                case 9:
                    Log(backEnd, driver);
                    break;
                default:
                    Thread.Sleep(random.Next(3));
                    break;
            }
        }
        driver.Stop();
        foreach (SharedMemoryRegion region in device.SharedMemory)
            totals.AddMaps(region.Counters.Maps);
        device.Reset();
        // It has let go of the guest's memory and of what was mapped.
        Assert.True(backEnd.Counters.Connects > 0);
        Assert.Empty(slots.Mapped);
    }

    private static void Move(FrontEnd backEnd, GuestDriver driver, bool started)
    {
        if (started)
            driver.Stop();
        try
        {
            backEnd.LoadState(backEnd.SaveState());
        }
        catch (VmmException e)
        {
            Assert.DoesNotContain("defect", e.Message, StringComparison.Ordinal);
        }
        if (started)
            driver.Restart();
    }

    private static void Log(FrontEnd backEnd, GuestDriver driver)
    {
        if (!backEnd.CanLog)
            return;
        using var log = new DirtyLog(driver.Memory);
        try
        {
            backEnd.StartLogging(log);
        }
        catch (VmmException e)
        {
            Assert.DoesNotContain("defect", e.Message, StringComparison.Ordinal);
        }
        backEnd.StopLogging();
    }

    private static (long Mappings, long Memory) Room()
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        GC.Collect();
        return (File.ReadLines("/proc/self/maps").LongCount(), Environment.WorkingSet);
    }

    /// <summary>What came of it.</summary>
    private sealed class Totals
    {
        public long Cases;
        private long _answers, _wrong, _requests, _display, _served;

        public long Sent => Volatile.Read(ref _answers) + Volatile.Read(ref _requests) + Volatile.Read(ref _display);

        public long Maps { get; private set; }

        public long Losses { get; private set; }

        public long Connects { get; private set; }

        public long Served => Volatile.Read(ref _served);

        public void AddMaps(long maps) => Maps += maps;

        public void Add(FrontEnd backEnd) => (Losses, Connects) = (Losses + backEnd.Counters.Losses, Connects + backEnd.Counters.Connects);

        public void CountAnswer(bool wrong)
        {
            Interlocked.Increment(ref _answers);
            if (wrong)
                Interlocked.Increment(ref _wrong);
        }

        public void CountRequest() => Interlocked.Increment(ref _requests);

        public void CountDisplay() => Interlocked.Increment(ref _display);

        public void CountServed() => Interlocked.Increment(ref _served);

        public override string ToString() =>
            $"{Sent} messages ({_answers} answers, {_wrong} of them wrong, {_requests} requests, {_display} to a display) on {Connects} connections to {Cases} devices, {Losses} lost, {_served} starts of a queue, {Maps} mapped;";
    }

    /// <summary>A back-end's end of both channels; right until one answer is not, and it may be right for ever.</summary>
    private sealed class Peer : IDisposable
    {
        private readonly UnixStream _main;
        private readonly int _configurationLength;
        private readonly Random _random;
        private readonly Totals _totals;
        private readonly AnyDescriptors _any;
        private readonly List<FileDescriptor> _received = [];
        private readonly Thread _thread;
        private UnixStream? _requests;
        private UnixStream? _display;

        public Peer(UnixStream main, int configurationLength, Random random, Totals totals, AnyDescriptors any)
        {
            (_main, _configurationLength, _random, _totals, _any) = (main, configurationLength, random, totals, any);
            _thread = new Thread(Serve, maxStackSize: 256 * 1024) { IsBackground = true };
            _thread.Start();
        }

        public void Dispose()
        {
            _main.Shutdown();
            Assert.True(_thread.Join(s_patience), "The back-end of the test waits for ever.");
            _main.Dispose();
        }

        private void Serve()
        {
            int faultAt = _random.Next(4) == 0 ? int.MaxValue : _random.Next(_random.Next(2) == 0 ? 20 : 400);
            byte[] head = new byte[VhostUserHeader.Length];
            byte[] payload = new byte[VhostUserHeader.MaximumPayload];
            for (int answered = 0; _main.ReceiveExactly(head, _received, -1) == 0;)
            {
                VhostUserHeader header = MemoryMarshal.Read<VhostUserHeader>(head);
                if (_main.ReceiveExactly(payload.AsSpan(0, (int)header.Size), _received, -1) != 0)
                    break;
                var request = (FrontEndRequest)header.Request;
                FileDescriptor? answer = Take(request, payload);
                byte[]? body = Body(request, payload.AsSpan(0, (int)header.Size), answer != null);
                if (body != null || (header.Flags & VhostUserHeader.NeedReply) != 0)
                {
                    byte[] message = new byte[VhostUserHeader.Length + (body?.Length ?? sizeof(ulong))];
                    MemoryMarshal.Write(message, new VhostUserHeader(header.Request, 5, (uint)(message.Length - VhostUserHeader.Length)));
                    body?.CopyTo(message.AsSpan(VhostUserHeader.Length));
                    int[] fds = answer == null ? [] : [answer.Number];
                    bool wrong = answered++ == faultAt;
                    if (wrong)
                        (message, fds) = RandomMessages.Spoil(_random, message, _any);
                    _totals.CountAnswer(wrong);
                    int error = message.Length > 0 ? _main.Send(message, fds, 1000) : 0;
                    answer?.Dispose();
                    if (error != 0)
                        break;
                }
                if (_random.Next(3) == 0)
                    SendRequests();
                if (_display != null && _random.Next(3) == 0)
                    SendToDisplay();
            }
            _received.ForEach(descriptor => descriptor.Dispose());
            _requests?.Dispose();
            _display?.Dispose();
            _main.Shutdown();
        }

        /// <summary>Takes what came with a request; gives what goes with the answer.</summary>
        private FileDescriptor? Take(FrontEndRequest request, ReadOnlySpan<byte> payload)
        {
            FileDescriptor? first = _received.Count > 0 ? _received[0] : null;
            if (first != null)
                _received.RemoveAt(0);
            _received.ForEach(descriptor => descriptor.Dispose());
            _received.Clear();
            switch (request)
            {
                case FrontEndRequest.SetBackEndRequestFd when first != null:
                    _requests?.Dispose();
                    _requests = new UnixStream(first);
                    return null;
                case FrontEndRequest.GpuSetSocket when first != null:
                    _display?.Dispose();
                    _display = new UnixStream(first);
                    return null;
                case FrontEndRequest.SetDeviceStateFd when first != null:
                    Transfer(first, isSave: payload[0] == 0);
                    return null;
                case FrontEndRequest.SetVringKick:
                    _totals.CountServed();
                    break;
            }
            first?.Dispose();
            if (request != FrontEndRequest.GetInflightFd || _random.Next(2) == 0)
                return null;
            int inflight = LibC.memfd_create("inflight", LibC.MFD_CLOEXEC);
            Assert.Equal(0, LibC.ftruncate(inflight, 4096));
            return new FileDescriptor(inflight);
        }

        private unsafe void Transfer(FileDescriptor pipe, bool isSave)
        {
            using (pipe)
            {
                Span<byte> bytes = stackalloc byte[4096];
                fixed (byte* data = bytes)
                {
                    if (isSave)
                    {
                        for (int i = _random.Next(3); i > 0 && LibC.write(pipe.Number, data, (nuint)_random.Next(1, bytes.Length)) > 0; i--)
                        {
                        }
                    }
                    else
                    {
                        while (_random.Next(20) != 0 && LibC.read(pipe.Number, data, (nuint)bytes.Length) > 0)
                        {
                        }
                    }
                }
            }
        }

        private byte[]? Body(FrontEndRequest request, ReadOnlySpan<byte> payload, bool hasDescriptor)
        {
            switch (request)
            {
                case FrontEndRequest.GetFeatures:
                    return BitConverter.GetBytes(VhostUserFeatures.ProtocolFeatures | VhostUserFeatures.LogAll | VirtioFeatures.Version1 | NetFeatures.MultiQueue);
                case FrontEndRequest.GetProtocolFeatures:
                    return BitConverter.GetBytes(ProtocolFeatures.Implemented | ProtocolFeatures.Network);
                case FrontEndRequest.GetQueueNum or FrontEndRequest.GetMaxMemSlots:
                    return BitConverter.GetBytes(8UL);
                case FrontEndRequest.GetShmemConfig:
                    byte[] regions = new byte[2056];
                    (regions[0], regions[8 + 2]) = (1, 16); // one region, of 1 MiB
                    return regions;
                case FrontEndRequest.GetInflightFd when hasDescriptor:
                    byte[] inflight = payload.ToArray();
                    BitConverter.TryWriteBytes(inflight, 4096UL);
                    return inflight;
                case FrontEndRequest.GetConfig or FrontEndRequest.GetInflightFd or FrontEndRequest.GetVringBase:
                    return payload.ToArray();
                case FrontEndRequest.SetDeviceStateFd:
                    return BitConverter.GetBytes(0x100UL);
                case FrontEndRequest.CheckDeviceState:
                    return BitConverter.GetBytes(_random.Next(10) == 0 ? 1UL : 0);
                case FrontEndRequest.SetLogBase:
                    return new byte[8];
                default:
                    return null;
            }
        }

        private void SendRequests()
        {
            if (_requests == null)
                return;
            for (int i = _random.Next(60); i > 0; i--)
            {
                _totals.CountRequest();
                if (RandomMessages.SendRequest(_random, _requests, _any, isEnding: _random.Next(10) == 0) != 0)
                {
                    _requests.Dispose();
                    _requests = null;
                    return;
                }
                _ = RandomMessages.Drain(_requests);
            }
        }

        private void SendToDisplay()
        {
            for (int i = _random.Next(10); i > 0; i--)
            {
                _totals.CountDisplay();
                (byte[] message, int descriptors) = RandomMessages.ToDisplay(_random);
                if (_display!.Send(message, _any.Some(_random, descriptors), 1000) != 0)
                {
                    _display.Dispose();
                    _display = null;
                    return;
                }
                _ = RandomMessages.Drain(_display);
            }
        }
    }
}
