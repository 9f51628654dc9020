using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices.Net;

/// <summary>Frames between a guest and the host's network stack, and between two guests on a bridge, through real taps.</summary>
[Collection("taps")]
public sealed class TapTrafficTests
{
    private const byte Udp = 17;
    private const byte Tcp = 6;
    private const int GsoSize = 1448;

    private static readonly MacAddress Card = Frames.Mac("52:54:00:12:34:56");

    [SkippableTheory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void Arp_ping_and_datagrams_pass_both_ways(int rings)
    {
        TapHost.Require();
        uint network = TapHost.NextNetwork();
        using Tap tap = Open(network);
        using NetGuest guest = Guest(tap, RingFeatures.Of(rings));
        MacAddress host = Frames.Mac(TapHost.Read(tap.Name, "address"));
        guest.Provide(64, 1600);

        // The guest asks for the host's address, and pings it.
        guest.Send(Arp(1, MacAddress.Broadcast, network + 2, default, network + 1));
        byte[] reply = Next(guest, f => f.AsSpan(12, 2).SequenceEqual((byte[])[8, 6]) && f[21] == 2);
        Assert.Equal(host, MacAddress.From(reply.AsSpan(22)));
        byte[] echo = new byte[508];
        new Random(1).NextBytes(echo);
        echo[0] = 8;
        echo[1] = echo[2] = echo[3] = 0;
        BinaryPrimitives.WriteUInt16BigEndian(echo.AsSpan(2), (ushort)~Frames.Sum(echo));
        guest.Send(Packet(host, Frames.Ipv4(network + 2, network + 1, 1, echo.Length), echo));
        byte[] pong = Next(guest, f => IsIp(f, 1) && f[34] == 0);
        Assert.Equal(echo[4..], pong[38..]);

        // A datagram whose checksum is left to the device.
        using var socket = new UdpClient(new IPEndPoint(TapHost.Address(network + 1), 0));
        socket.Client.ReceiveTimeout = 30_000;
        int port = ((IPEndPoint)socket.Client.LocalEndPoint!).Port;
        byte[] data = new byte[1400];
        new Random(2).NextBytes(data);
        guest.Send(Datagram(host, network + 2, network + 1, 5555, port, data));
        var from = new IPEndPoint(IPAddress.Any, 0);
        Assert.Equal(data, socket.Receive(ref from));
        Assert.Equal(new IPEndPoint(TapHost.Address(network + 2), 5555), from);

        // The host asks for the guest's address, and answers.
        Array.Reverse(data);
        socket.Send(data, data.Length, from);
        Assert.Equal(data, NextData(guest, network, host)[42..]);
        Assert.Equal(0, guest.Counter("tx_dropped"));
        Assert.Equal(0, guest.Counter("rx_errors"));
    }

    [SkippableTheory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_segment_of_60_kB_reaches_another_guest_whole_or_cut_and_summed(bool offloads)
    {
        TapHost.Require();
        using Tap here = Tap.Open(new NetConfig { Id = "net0" });
        using Tap there = Tap.Open(new NetConfig { Id = "net1" });
        string bridge = $"vmbr{Environment.ProcessId % 100000}";
        TapHost.Ip($"link add {bridge} type bridge mcast_snooping 0");
        try
        {
            TapHost.Ip($"link set {here.Name} master {bridge}");
            TapHost.Ip($"link set {there.Name} master {bridge}");
            TapHost.Ip($"link set {bridge} up");
            using var sender = new NetGuest(new NetConfig { Id = "net0" }, here);
            using var receiver = new NetGuest(new NetConfig { Id = "net1", Mac = Card }, there, without: offloads ? 0 : NetFeatures.GuestOffloads);
            receiver.Provide(120, 1526);
            byte[] data = new byte[60_000];
            new Random(3).NextBytes(data);
            const uint From = 0xC612FE01, To = 0xC612FE02;
            sender.Send(Segment(Card, From, To, data, GsoSize));
            Assert.Equal(0, sender.Counter("tx_dropped"));

            var got = new List<byte>();
            int frames = 0;
            while (got.Count < data.Length)
            {
                (byte[] frame, int buffers) = NextWithBuffers(receiver, f => IsIp(f, Tcp));
                byte[] header = frame[..12];
                byte[] body = frame[12..];
                frames++;
                Assert.Equal((frame.Length + 1525) / 1526, buffers);
                got.AddRange(body[54..(14 + BinaryPrimitives.ReadUInt16BigEndian(body.AsSpan(16)))]);
                if (offloads)
                {
                    Assert.Equal(1, header[0] & 1);
                    Assert.Equal(1, header[1]);
                    Assert.Equal(GsoSize, BinaryPrimitives.ReadUInt16LittleEndian(header.AsSpan(4)));
                }
                else
                {
                    Assert.Equal(0, header[0]);
                    Assert.Equal(0, header[1]);
                    ReadOnlySpan<byte> tcp = body.AsSpan(34, BinaryPrimitives.ReadUInt16BigEndian(body.AsSpan(16)) - 20);
                    Assert.Equal(0xFFFF, Frames.Sum(tcp, Frames.PseudoSum(From, To, Tcp, tcp.Length)));
                }
            }
            Assert.Equal(offloads ? 1 : (data.Length + GsoSize - 1) / GsoSize, frames);
            Assert.True(data.AsSpan().SequenceEqual(got.ToArray()));
        }
        finally
        {
            TapHost.Ip($"link del {bridge}");
        }
    }

    [SkippableFact]
    public void A_header_that_makes_no_sense_is_refused_by_the_kernel_and_counted()
    {
        TapHost.Require();
        using Tap tap = Open(TapHost.NextNetwork());
        using NetGuest guest = Guest(tap, default);
        byte[] frame = Frames.Ethernet(Card, 100);
        frame[0] = 1;
        BinaryPrimitives.WriteUInt16LittleEndian(frame.AsSpan(6), 60_000);
        guest.Send(frame);
        frame[0] = 0;
        frame[1] = 0x77;
        guest.Send(frame);
        Assert.Equal(2, guest.Counter("tx_dropped"));
        frame[1] = 0;
        guest.Send(frame);
        Assert.Equal(1, guest.Counter("tx_frames"));
    }

    [SkippableFact]
    public void Frames_come_by_the_queues_that_are_enabled()
    {
        TapHost.Require();
        uint network = TapHost.NextNetwork();
        using Tap tap = Open(network, pairs: 4);
        using NetGuest guest = Guest(tap, default);
        for (int i = 0; i < 4; i++)
            guest.Provide(120, 1600, guest.Driver.Queues[2 * i]);
        Assert.Equal([0], QueuesThatReceive(guest, network, 1));
        Assert.Equal(NetGuest.Ok, guest.Command(4, 0, 4, 0));
        Assert.InRange(QueuesThatReceive(guest, network, 2).Count, 2, 4);
        Assert.Equal(NetGuest.Ok, guest.Command(4, 0, 1, 0));
        Assert.Equal([0], QueuesThatReceive(guest, network, 3));
        // And any of them sends.
        Assert.Equal(NetGuest.Ok, guest.Command(4, 0, 4, 0));
        for (int i = 0; i < 4; i++)
            guest.Send(Frames.Ethernet(MacAddress.Broadcast, 50), guest.Driver.Queues[(2 * i) + 1]);
        Assert.Equal(4, guest.Counter("tx_frames"));
        Assert.Equal(0, guest.Counter("tx_dropped"));
    }

    [SkippableFact]
    public void Resets_under_load_and_new_lives_lose_no_descriptor()
    {
        TapHost.Require();
        uint network = TapHost.NextNetwork();
        int before = TapHost.OpenTaps();
        using (Tap tap = Open(network, pairs: 2))
        {
            using var flood = new Flood(network);
            for (int life = 0; life < 5; life++)
            {
                using NetGuest guest = Guest(tap, default, without: life % 2 == 0 ? 0 : NetFeatures.GuestOffloads);
                for (int i = 0; i < 20; i++)
                {
                    guest.Provide(100, 1600);
                    guest.Provide(100, 1600, guest.Driver.Queues[2]);
                    Assert.Equal(NetGuest.Ok, guest.Command(4, 0, 2, 0));
                    for (int k = 0; k < 10; k++)
                        Assert.True(guest.Transmit.Add(Frames.Ethernet(MacAddress.Broadcast, 1000), 0) >= 0);
                    guest.Transmit.Kick();
                    Next(guest, f => IsIp(f, Udp));
                    guest.Driver.Reset();
                    guest.Driver.Start();
                }
                Assert.False(guest.Driver.Host.IsResetNeeded);
                Assert.Equal(0, guest.Counter("rx_errors"));
            }
            Assert.Equal(before + 2, TapHost.OpenTaps());
        }
        Assert.Equal(before, TapHost.OpenTaps());
    }

    private static Tap Open(uint network, int pairs = 1) =>
        Tap.Open(new NetConfig { Id = "net0", Ip = TapHost.Address(network + 1), NumQueues = 2 * pairs });

    private static NetGuest Guest(Tap tap, RingFeatures rings, ulong without = 0) =>
        new(new NetConfig { Id = "net0", Mac = Card, NumQueues = 2 * tap.Ports.Count }, tap, rings, without);

    /// <summary>Broadcasts datagrams from many ports; gives the pairs that they came by, after all have come.</summary>
    private static List<int> QueuesThatReceive(NetGuest guest, uint network, byte round)
    {
        const int Count = 64;
        for (int i = 0; i < Count; i++)
        {
            using var socket = new UdpClient(new IPEndPoint(TapHost.Address(network + 1), 0)) { EnableBroadcast = true };
            socket.Send([round, (byte)i], 2, new IPEndPoint(TapHost.Address(network + 255), 7777));
        }
        var queues = new SortedSet<int>();
        int seen = 0;
        foreach (DriverQueue queue in guest.Driver.Queues)
            queue.EnableInterrupts();
        guest.Driver.Host.WaitUntil(() =>
        {
            for (int i = 0; i < guest.Device.QueueSizes.Count / 2; i++)
            {
                DriverQueue queue = guest.Driver.Queues[2 * i];
                while (queue.TryGetUsed(out UsedBuffer used))
                {
                    byte[] frame = queue.Read(used);
                    guest.Provide(1, 1600, queue);
                    queue.EnableInterrupts();
                    if (!IsIp(frame[12..], Udp) || frame[12 + 42] != round)
                        continue;
                    queues.Add(i);
                    seen++;
                }
            }
            return seen == Count;
        });
        return [.. queues];
    }

    private static bool IsIp(byte[] frame, byte protocol) => frame.Length > 34 && frame[12] == 8 && frame[13] == 0 && frame[23] == protocol;

    /// <summary>The next frame of a kind, without its header; the host's own chatter (IPv6, IGMP) is passed over.</summary>
    private static byte[] Next(NetGuest guest, Func<byte[], bool> wanted) => NextWithBuffers(guest, wanted).Frame[12..];

    private static (byte[] Frame, int Buffers) NextWithBuffers(NetGuest guest, Func<byte[], bool> wanted)
    {
        while (true)
        {
            (byte[] frame, int buffers) = guest.NextFrame();
            if (wanted(frame[12..]))
                return (frame, buffers);
            guest.Provide(buffers, 1600);
        }
    }

    /// <summary>Answers the host's question for the guest's address, if there is one, until its datagram comes.</summary>
    private static byte[] NextData(NetGuest guest, uint network, MacAddress host)
    {
        while (true)
        {
            byte[] frame = Next(guest, f => IsIp(f, Udp) || (f[12] == 8 && f[13] == 6 && f[21] == 1));
            if (IsIp(frame, Udp))
            {
                Assert.Equal(Card, MacAddress.From(frame));
                Assert.Equal(host, MacAddress.From(frame.AsSpan(6)));
                return frame;
            }
            guest.Send(Arp(2, host, network + 2, host, network + 1));
        }
    }

    private static byte[] Packet(MacAddress to, byte[] ip, byte[] payload)
    {
        byte[] frame = new byte[12 + 14 + ip.Length + payload.Length];
        to.CopyTo(frame.AsSpan(12));
        Card.CopyTo(frame.AsSpan(18));
        frame[24] = 8;
        ip.CopyTo(frame, 26);
        payload.CopyTo(frame, 26 + ip.Length);
        return frame;
    }

    private static byte[] Arp(byte operation, MacAddress to, uint sender, MacAddress target, uint targetAddress)
    {
        byte[] frame = new byte[12 + 14 + 28];
        to.CopyTo(frame.AsSpan(12));
        Card.CopyTo(frame.AsSpan(18));
        ((byte[])[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]).CopyTo(frame, 24);
        Card.CopyTo(frame.AsSpan(34));
        BinaryPrimitives.WriteUInt32BigEndian(frame.AsSpan(40), sender);
        target.CopyTo(frame.AsSpan(44));
        BinaryPrimitives.WriteUInt32BigEndian(frame.AsSpan(50), targetAddress);
        return frame;
    }

    /// <summary>A UDP packet with a partial checksum.</summary>
    private static byte[] Datagram(MacAddress to, uint from, uint at, int fromPort, int port, byte[] data)
    {
        byte[] udp = new byte[8 + data.Length];
        BinaryPrimitives.WriteUInt16BigEndian(udp, (ushort)fromPort);
        BinaryPrimitives.WriteUInt16BigEndian(udp.AsSpan(2), (ushort)port);
        BinaryPrimitives.WriteUInt16BigEndian(udp.AsSpan(4), (ushort)udp.Length);
        BinaryPrimitives.WriteUInt16BigEndian(udp.AsSpan(6), Frames.PseudoSum(from, at, Udp, udp.Length));
        data.CopyTo(udp, 8);
        byte[] frame = Packet(to, Frames.Ipv4(from, at, Udp, udp.Length), udp);
        frame[0] = 1;
        BinaryPrimitives.WriteUInt16LittleEndian(frame.AsSpan(6), 34);
        BinaryPrimitives.WriteUInt16LittleEndian(frame.AsSpan(8), 6);
        return frame;
    }

    /// <summary>A TCP packet to be cut into segments, with a partial checksum.</summary>
    private static byte[] Segment(MacAddress to, uint from, uint at, byte[] data, int gsoSize)
    {
        byte[] tcp = new byte[20 + data.Length];
        BinaryPrimitives.WriteUInt16BigEndian(tcp, 4000);
        BinaryPrimitives.WriteUInt16BigEndian(tcp.AsSpan(2), 5000);
        tcp[12] = 0x50;
        tcp[13] = 0x10;
        BinaryPrimitives.WriteUInt16BigEndian(tcp.AsSpan(14), 1000);
        BinaryPrimitives.WriteUInt16BigEndian(tcp.AsSpan(16), Frames.PseudoSum(from, at, Tcp, tcp.Length));
        data.CopyTo(tcp, 20);
        byte[] frame = Packet(to, Frames.Ipv4(from, at, Tcp, tcp.Length), tcp);
        // Not from the address that it goes to, or a bridge thinks that it is there already.
        frame[23]++;
        frame[0] = 1;
        frame[1] = 1;
        BinaryPrimitives.WriteUInt16LittleEndian(frame.AsSpan(2), 54);
        BinaryPrimitives.WriteUInt16LittleEndian(frame.AsSpan(4), (ushort)gsoSize);
        BinaryPrimitives.WriteUInt16LittleEndian(frame.AsSpan(6), 34);
        BinaryPrimitives.WriteUInt16LittleEndian(frame.AsSpan(8), 16);
        return frame;
    }

    /// <summary>The host broadcasts datagrams, as fast as it can but leaving others their turn.</summary>
    private sealed class Flood : IDisposable
    {
        private readonly Thread _thread;
        private volatile bool _stopping;

        public Flood(uint network)
        {
            _thread = new Thread(() =>
            {
                // From many ports: the host spreads its packets over the pairs by these, and each pair is to get some.
                UdpClient[] sockets = new UdpClient[32];
                for (int i = 0; i < sockets.Length; i++)
                    sockets[i] = new UdpClient(new IPEndPoint(TapHost.Address(network + 1), 0)) { EnableBroadcast = true };
                byte[] data = new byte[1000];
                var to = new IPEndPoint(TapHost.Address(network + 255), 7777);
                while (!_stopping)
                {
                    for (int i = 0; i < 96; i++)
                        sockets[i % sockets.Length].Send(data, data.Length, to);
                    Thread.Sleep(1);
                }
                foreach (UdpClient socket in sockets)
                    socket.Dispose();
            })
            { IsBackground = true };
            _thread.Start();
        }

        public void Dispose()
        {
            _stopping = true;
            _thread.Join();
        }
    }
}
