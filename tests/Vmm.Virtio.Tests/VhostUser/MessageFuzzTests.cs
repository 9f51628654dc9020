using System.Globalization;
using System.Runtime.InteropServices;
using Vmm.Core.Interop;
using Vmm.Core.Sockets;
using Vmm.Virtio.SharedMemory;
using Vmm.Virtio.Tests.Devices.Pmem;
using Vmm.Virtio.VhostUser;
using Vmm.Virtio.VhostUser.Protocol;
using Xunit.Abstractions;

namespace Vmm.Virtio.Tests.VhostUser;

/// <summary>
/// Random messages that are nearly right, on both channels. VMM_TEST_VHOST_USER_MESSAGES says how many, VMM_TEST_VHOST_USER_SEED from which seed;
/// scripts/soak runs millions.
/// </summary>
[Collection(nameof(MessageFuzzTests))]
public sealed class MessageFuzzTests(ITestOutputHelper output)
{
    private const ulong WindowLength = 1 << 20;
    private const ulong Page = 4096;

    private static readonly long s_messages = Number("VMM_TEST_VHOST_USER_MESSAGES", 20_000);
    private static readonly int s_seed = (int)Number("VMM_TEST_VHOST_USER_SEED", 20261121);

    [Fact]
    public void Requests_of_a_back_end()
    {
        var random = new Random(s_seed);
        using var window = new SharedMemoryWindow(0, WindowLength, new FakeSlots(), SharedMemoryQuota.ForMachine().ForDevice(64));
        window.Place(1UL << 40);
        using var descriptors = new Descriptors();
        (int Files, int Threads) before = default;
        long sent = 0, connections = 0, answers = 0;
        while (sent < s_messages)
        {
            connections++;
            (UnixStream ours, UnixStream theirs) = UnixStream.CreatePair();
            // As the device's worker does: else who sends waits for room until its deadline.
            var requests = new Requests(window, theirs.Shutdown);
            ulong features = random.Next(8) == 0 ? (ulong)random.NextInt64() : ProtocolFeatures.Implemented;
            using (theirs)
            using (new BackEndChannel("fuzz", ours, features, requests, 200))
            {
                for (int i = 0; i < 2000 && sent < s_messages && !requests.HasEnded; i++, sent++)
                {
                    if (SendRequest(random, theirs, descriptors) != 0)
                        break;
                    answers += Drain(theirs);
                }
            }
            window.UnmapAll();
            if (connections == 1)
                before = (Files(), Threads());
        }
        Assert.Equal(0, window.Count);
        (int Files, int Threads) after = (Files(), Threads());
        output.WriteLine($"seed {s_seed}: {sent} messages on {connections} connections, {answers} bytes of answers, {window.Counters.Maps} mapped; descriptors {before.Files} -> {after.Files}, threads {before.Threads} -> {after.Threads}");
        Assert.InRange(after.Files, 0, before.Files + 8);
        Assert.InRange(after.Threads, 0, before.Threads + 8);
        Assert.True(s_messages < 10_000 || window.Counters.Maps > 0, "Some are right.");
    }

    [Fact]
    public void Answers_to_a_front_end()
    {
        var random = new Random(s_seed);
        var settings = new VhostUserSettings
        {
            Id = "fuzz",
            Socket = "",
            Type = (VirtioDeviceType)42,
            QueueSizes = [64],
            ConfigurationLength = 8,
            Timeouts = new VhostUserTimeouts(Request: 5, Stop: 5) { BackEndReply = 5 },
        };
        using var descriptors = new Descriptors();
        (int Files, int Threads) before = default;
        long messages = 0, cases = 0, right = 0;
        // Each case is a few messages; an answer that never comes is a deadline.
        while (messages < s_messages)
        {
            (UnixStream ours, UnixStream theirs) = UnixStream.CreatePair();
            int faultAt = random.Next(12);
            int seed = random.Next();
            var peer = new Thread(() => Answer(new Random(seed), theirs, faultAt, descriptors));
            peer.Start();
            var channel = new MainChannel(ours, settings.Timeouts);
            BackEndChannel? requests = null;
            try
            {
                BackEndOffer offer = Handshake.Negotiate(channel, settings, ~0UL, new Requests(null, () => { }), out requests);
                Talk(channel, offer);
                right++;
            }
            catch (BackEndException e)
            {
                Assert.DoesNotContain('\n', e.Message);
            }
            messages += channel.Sent;
            requests?.Dispose();
            channel.Dispose();
            theirs.Shutdown();
            Assert.True(peer.Join(TimeSpan.FromSeconds(30)));
            theirs.Dispose();
            if (++cases == 20)
                before = (Files(), Threads());
        }
        (int Files, int Threads) after = (Files(), Threads());
        output.WriteLine($"seed {s_seed}: {messages} messages in {cases} connections, {right} without a fault that shows; descriptors {before.Files} -> {after.Files}, threads {before.Threads} -> {after.Threads}");
        Assert.InRange(after.Files, 0, before.Files + 8);
        Assert.InRange(after.Threads, 0, before.Threads + 8);
        Assert.True(right > 0, "Some are right.");
    }

    private static void Talk(MainChannel channel, BackEndOffer offer)
    {
        channel.Send(FrontEndRequest.SetFeatures, offer.Features, acknowledged: true);
        Span<byte> configuration = stackalloc byte[8];
        channel.ReadConfiguration(0, configuration);
        _ = channel.AskForDescriptor<InflightDescription, InflightDescription>(FrontEndRequest.GetInflightFd, default, -1, out FileDescriptor? inflight);
        inflight?.Dispose();
        _ = channel.AskForDescriptor<ulong, DeviceStateTransfer>(FrontEndRequest.SetDeviceStateFd, default, -1, out FileDescriptor? state);
        state?.Dispose();
        channel.SetLogBase(new LogDescription(4096, 0), 0);
        _ = channel.Ask<VringState, VringState>(FrontEndRequest.GetVringBase, new VringState(0, 0));
    }

    /// <summary>The peer of <see cref="Handshake"/> and <see cref="Talk"/>: right until one answer is not.</summary>
    private static void Answer(Random random, UnixStream stream, int faultAt, Descriptors descriptors)
    {
        var received = new List<FileDescriptor>();
        byte[] head = new byte[VhostUserHeader.Length];
        byte[] payload = new byte[VhostUserHeader.MaximumPayload];
        for (int answered = 0; stream.ReceiveExactly(head, received, -1) == 0;)
        {
            VhostUserHeader header = MemoryMarshal.Read<VhostUserHeader>(head);
            if (stream.ReceiveExactly(payload.AsSpan(0, (int)header.Size), received, -1) != 0)
                break;
            received.ForEach(descriptor => descriptor.Dispose());
            received.Clear();
            byte[]? body = Body((FrontEndRequest)header.Request, payload.AsSpan(0, (int)header.Size));
            if (body == null && (header.Flags & VhostUserHeader.NeedReply) == 0)
                continue;
            byte[] message = new byte[VhostUserHeader.Length + (body?.Length ?? sizeof(ulong))];
            MemoryMarshal.Write(message, new VhostUserHeader(header.Request, 5, (uint)(message.Length - VhostUserHeader.Length)));
            body?.CopyTo(message.AsSpan(VhostUserHeader.Length));
            int[] fds = [];
            if (answered++ == faultAt)
                (message, fds) = Spoil(random, message, descriptors);
            if (message.Length > 0 && stream.Send(message, fds, 1000) != 0)
                break;
        }
        received.ForEach(descriptor => descriptor.Dispose());
    }

    private static byte[]? Body(FrontEndRequest request, ReadOnlySpan<byte> payload) => request switch
    {
        FrontEndRequest.GetFeatures => BitConverter.GetBytes(VhostUserFeatures.ProtocolFeatures | VirtioFeatures.Version1),
        FrontEndRequest.GetProtocolFeatures => BitConverter.GetBytes(ProtocolFeatures.Implemented),
        FrontEndRequest.GetQueueNum or FrontEndRequest.GetMaxMemSlots => BitConverter.GetBytes(8UL),
        FrontEndRequest.GetShmemConfig => new byte[2056],
        FrontEndRequest.GetConfig or FrontEndRequest.GetInflightFd or FrontEndRequest.GetVringBase => payload.ToArray(),
        FrontEndRequest.SetDeviceStateFd => BitConverter.GetBytes(0x100UL),
        FrontEndRequest.SetLogBase => new byte[8],
        _ => null,
    };

    private static (byte[] Message, int[] Descriptors) Spoil(Random random, byte[] message, Descriptors descriptors)
    {
        switch (random.Next(7))
        {
            case 0:
                message[random.Next(message.Length)] ^= (byte)(1 << random.Next(8));
                return (message, []);
            case 1:
                return (message[..random.Next(message.Length)], []);
            case 2:
                MemoryMarshal.Write(message.AsSpan(8), (uint)random.NextInt64());
                return (message, []);
            case 3:
                return (message, descriptors.Some(random, random.Next(1, 4)));
            case 4:
                return ([.. message, .. message], []);
            case 5:
                random.NextBytes(message.AsSpan(VhostUserHeader.Length));
                return (message, random.Next(2) == 0 ? [] : descriptors.Some(random, 1));
            default:
                random.NextBytes(message);
                return (message, []);
        }
    }

    private static int SendRequest(Random random, UnixStream stream, Descriptors descriptors)
    {
        uint request = random.Next(10) switch { < 5 => 9, < 8 => 10, 8 => 2, _ => (uint)random.Next(1100) };
        uint flags = random.Next(200) == 0 ? (uint)random.Next(64) : random.Next(2) == 0 ? 1u : 9u;
        byte[] payload = request is 9 or 10 ? Mapping(random) : new byte[random.Next(3) == 0 ? random.Next(64) : 0];
        if (random.Next(50) == 0)
            payload = [.. payload, .. new byte[random.Next(100)]];
        uint size = random.Next(2000) == 0 ? (uint)random.NextInt64() : (uint)payload.Length;
        byte[] message = new byte[VhostUserHeader.Length + payload.Length];
        MemoryMarshal.Write(message, new VhostUserHeader(request, flags, size));
        payload.CopyTo(message, VhostUserHeader.Length);
        if (random.Next(500) == 0)
            message[random.Next(message.Length)] ^= (byte)(1 << random.Next(8));
        int count = random.Next(20) switch { 0 => random.Next(5), 1 => 0, _ => request == 9 ? 1 : 0 };
        return stream.Send(message, descriptors.Some(random, count), 2000);
    }

    private static byte[] Mapping(Random random)
    {
        ulong Offset() => random.Next(30) switch { 0 => (ulong)random.NextInt64(), 1 => ulong.MaxValue - (ulong)random.Next(8192), 2 => (ulong)random.Next(1 << 21), _ => (ulong)random.Next(64) * Page };
        byte[] bytes = new byte[40];
        MemoryMarshal.Write(bytes, new SharedMemoryMapping(random.Next(20) == 0 ? (ulong)random.NextInt64() : 0, random.Next(3) == 0 ? Offset() : 0, Offset(), random.Next(10) == 0 ? Offset() : Page * (ulong)random.Next(1, 4), random.Next(20) == 0 ? (ulong)random.Next() : (ulong)random.Next(2)));
        return bytes;
    }

    private static int Drain(UnixStream stream)
    {
        Span<byte> room = stackalloc byte[4096];
        var received = new List<FileDescriptor>();
        int all = 0;
        int count;
        while ((count = stream.Receive(room, received)) > 0)
            all += count;
        Assert.Empty(received);
        return all;
    }

    private static int Files() => Directory.GetFiles("/proc/self/fd").Length;

    private static int Threads() => Directory.GetDirectories("/proc/self/task").Length;

    private static long Number(string variable, long otherwise) =>
        long.TryParse(Environment.GetEnvironmentVariable(variable), NumberStyles.None, CultureInfo.InvariantCulture, out long number) ? number : otherwise;

    /// <summary>The region's rules, without a device.</summary>
    private sealed class Requests(SharedMemoryWindow? window, Action end) : IBackEndRequests
    {
        private volatile bool _ended;

        public bool HasEnded => _ended;

        public void ConfigurationChanged()
        {
        }

        public int MapSharedMemory(in SharedMemoryMapping mapping, int descriptor) => window == null || mapping.Region != 0 || (mapping.Flags & ~1UL) != 0
            ? LibC.EINVAL
            : window.TryMap(descriptor, mapping.FileOffset, mapping.Offset, mapping.Length, (mapping.Flags & 1) != 0);

        public int UnmapSharedMemory(in SharedMemoryMapping mapping) => window == null || mapping.Region != 0 ? LibC.EINVAL : window.TryUnmap(mapping.Offset, mapping.Length);

        public void ChannelEnded(string clause)
        {
            Assert.DoesNotContain("defect", clause, StringComparison.Ordinal);
            _ended = true;
            end();
        }
    }

    /// <summary>Descriptors of all kinds, most of which are no memory.</summary>
    private sealed unsafe class Descriptors : IDisposable
    {
        private readonly List<FileDescriptor> _all = [];

        public Descriptors()
        {
            int memory = LibC.memfd_create("fuzz", LibC.MFD_CLOEXEC);
            Assert.Equal(0, LibC.ftruncate(memory, (long)WindowLength));
            for (int i = 0; i < 6; i++)
                _all.Add(new FileDescriptor(LibC.fcntl(memory, LibC.F_DUPFD_CLOEXEC, 0)));
            _all.Add(new FileDescriptor(memory));
            _all.Add(new FileDescriptor(LibC.memfd_create("empty", LibC.MFD_CLOEXEC)));
            _all.Add(new FileDescriptor(LibC.open("/dev/null", LibC.O_RDWR | LibC.O_CLOEXEC, 0)));
            _all.Add(new FileDescriptor(LibC.open("/", LibC.O_RDONLY | LibC.O_CLOEXEC, 0)));
            _all.Add(new FileDescriptor(LibC.eventfd(0, LibC.EFD_CLOEXEC)));
            int* pipe = stackalloc int[2];
            Assert.Equal(0, LibC.pipe2(pipe, LibC.O_CLOEXEC));
            _all.Add(new FileDescriptor(pipe[0]));
            _all.Add(new FileDescriptor(pipe[1]));
        }

        public int[] Some(Random random, int count)
        {
            int[] some = new int[count];
            for (int i = 0; i < count; i++)
                some[i] = _all[random.Next(_all.Count)].Number;
            return some;
        }

        public void Dispose() => _all.ForEach(descriptor => descriptor.Dispose());
    }
}

/// <summary>Not beside other tests: it counts the descriptors and threads of the whole process.</summary>
[CollectionDefinition(nameof(MessageFuzzTests), DisableParallelization = true)]
public sealed class MessageFuzzCollection
{
}
