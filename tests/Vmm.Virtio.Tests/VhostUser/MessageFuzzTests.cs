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
/// Random messages that are nearly right, on each channel by itself. VMM_TEST_VHOST_USER_MESSAGES says how many, VMM_TEST_VHOST_USER_SEED from
/// which seed.
/// </summary>
[Collection(nameof(MessageFuzzTests))]
public sealed class MessageFuzzTests(ITestOutputHelper output)
{
    private const ulong WindowLength = 1 << 20;
    private const ulong Page = 4096;

    private static readonly long s_messages = RandomMessages.Number("VMM_TEST_VHOST_USER_MESSAGES", 20_000);
    private static readonly int s_seed = (int)RandomMessages.Number("VMM_TEST_VHOST_USER_SEED", 20261121);

    [Fact]
    public void Requests_of_a_back_end()
    {
        var random = new Random(s_seed);
        using var window = new SharedMemoryWindow(0, WindowLength, new FakeSlots(), SharedMemoryQuota.ForMachine().ForDevice(64));
        window.Place(1UL << 40);
        using var descriptors = new AnyDescriptors();
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
                    if (RandomMessages.SendRequest(random, theirs, descriptors) != 0)
                        break;
                    answers += RandomMessages.Drain(theirs);
                }
            }
            window.UnmapAll();
            if (connections == 1)
                before = RandomMessages.Leaks();
        }
        Assert.Equal(0, window.Count);
        (int Files, int Threads) after = RandomMessages.Leaks();
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
        using var descriptors = new AnyDescriptors();
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
                before = RandomMessages.Leaks();
        }
        (int Files, int Threads) after = RandomMessages.Leaks();
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
    private static void Answer(Random random, UnixStream stream, int faultAt, AnyDescriptors descriptors)
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
                (message, fds) = RandomMessages.Spoil(random, message, descriptors);
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
}

/// <summary>Not beside other tests: it counts the descriptors and threads of the whole process.</summary>
[CollectionDefinition(nameof(MessageFuzzTests), DisableParallelization = true)]
public sealed class MessageFuzzCollection
{
}
