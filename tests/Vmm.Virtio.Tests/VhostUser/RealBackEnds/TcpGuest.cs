using System.Buffers.Binary;
using System.Diagnostics;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.VhostUser.RealBackEnds;

/// <summary>One TCP connection of a guest over its network card, by hand: Ethernet, ARP, IPv4, no options, nothing sent twice.</summary>
/// <param name="mac">The card's address.</param>
/// <param name="address">The guest's, IPv4.</param>
/// <param name="peer">Whom it speaks to.</param>
internal sealed class TcpGuest(byte[] mac, uint address, uint peer)
{
    private const int NetHeader = 12, Ethernet = 14, Ip = 20, Tcp = 20, OwnPort = 40_000;
    private const byte Fin = 1, Syn = 2, Reset = 4, Push = 8, Acknowledge = 16;

    private byte[] _gateway = [];
    private uint _next = 1000;
    private uint _expected;

    /// <summary>The card that it speaks through; another one may take over.</summary>
    public GuestDriver Card { get; set; } = null!;

    /// <summary>Gives the card room for frames.</summary>
    public void Listen()
    {
        while (Card.Queues[0].FreeDescriptors > 64)
            Assert.True(Card.Queues[0].Add([], writable: 2048) >= 0);
        Card.Queues[0].Kick();
    }

    /// <summary>Finds out who answers for the peer's address.</summary>
    public void Resolve()
    {
        byte[] request = new byte[28];
        ((ReadOnlySpan<byte>)[0, 1, 8, 0, 6, 4, 0, 1]).CopyTo(request);
        mac.CopyTo(request.AsSpan(8));
        BinaryPrimitives.WriteUInt32BigEndian(request.AsSpan(14), address);
        BinaryPrimitives.WriteUInt32BigEndian(request.AsSpan(24), peer);
        byte[]? answer = null;
        // One may be lost, as anywhere.
        for (int attempt = 0; attempt < 10 && answer == null; attempt++)
        {
            _gateway = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
            Send(0x0806, request);
            answer = TryReceive(0x0806, frame => frame[21] == 2, TimeSpan.FromSeconds(2));
        }
        _gateway = (answer ?? throw new TimeoutException("Nobody answers for the peer's address."))[22..28];
    }

    /// <summary>Opens the connection.</summary>
    public void Connect(ushort port)
    {
        Send(port, Syn, []);
        _next++;
        byte[] answer = ReceiveTcp(flags => (flags & (Syn | Acknowledge)) == (Syn | Acknowledge), out _);
        _expected = BinaryPrimitives.ReadUInt32BigEndian(answer.AsSpan(4)) + 1;
        Send(port, Acknowledge, []);
    }

    /// <summary>Says something and waits until it has come back.</summary>
    public byte[] Echo(ushort port, byte[] data)
    {
        Send(port, Push | Acknowledge, data);
        _next += (uint)data.Length;
        var got = new List<byte>();
        while (got.Count < data.Length)
        {
            byte[] segment = ReceiveTcp(_ => true, out int length);
            if (length == 0 || BinaryPrimitives.ReadUInt32BigEndian(segment.AsSpan(4)) != _expected)
                continue;
            int start = segment[12] >> 4 << 2;
            got.AddRange(segment[start..(start + length)]);
            _expected += (uint)length;
            Send(port, Acknowledge, []);
        }
        return [.. got];
    }

    private byte[] ReceiveTcp(Func<byte, bool> wanted, out int length)
    {
        byte[] frame = Receive(0x0800, f => f[Ethernet + 9] == 6 && BinaryPrimitives.ReadUInt16BigEndian(f.AsSpan(Ethernet + Ip + 2)) == OwnPort);
        byte flags = frame[Ethernet + Ip + 13];
        Assert.True((flags & (Reset | Fin)) == 0, $"The connection ended: flags 0x{flags:x}.");
        byte[] segment = frame[(Ethernet + Ip)..];
        length = BinaryPrimitives.ReadUInt16BigEndian(frame.AsSpan(Ethernet + 2)) - Ip - (segment[12] >> 4 << 2);
        return wanted(flags) ? segment : ReceiveTcp(wanted, out length);
    }

    private void Send(ushort port, byte flags, byte[] data)
    {
        byte[] packet = new byte[Ip + Tcp + data.Length];
        packet[0] = 0x45;
        BinaryPrimitives.WriteUInt16BigEndian(packet.AsSpan(2), (ushort)packet.Length);
        (packet[8], packet[9]) = (64, 6);
        BinaryPrimitives.WriteUInt32BigEndian(packet.AsSpan(12), address);
        BinaryPrimitives.WriteUInt32BigEndian(packet.AsSpan(16), peer);
        BinaryPrimitives.WriteUInt16BigEndian(packet.AsSpan(10), Checksum(packet.AsSpan(0, Ip), 0));
        Span<byte> tcp = packet.AsSpan(Ip);
        BinaryPrimitives.WriteUInt16BigEndian(tcp, OwnPort);
        BinaryPrimitives.WriteUInt16BigEndian(tcp[2..], port);
        BinaryPrimitives.WriteUInt32BigEndian(tcp[4..], _next);
        BinaryPrimitives.WriteUInt32BigEndian(tcp[8..], _expected);
        (tcp[12], tcp[13]) = (0x50, flags);
        BinaryPrimitives.WriteUInt16BigEndian(tcp[14..], 0x4000);
        data.CopyTo(tcp[Tcp..]);
        uint pseudo = (address >> 16) + (address & 0xFFFF) + (peer >> 16) + (peer & 0xFFFF) + 6 + (uint)tcp.Length;
        BinaryPrimitives.WriteUInt16BigEndian(tcp[16..], Checksum(tcp, pseudo));
        Send(0x0800, packet);
    }

    private void Send(ushort type, byte[] packet)
    {
        byte[] frame = [.. new byte[NetHeader], .. _gateway, .. mac, (byte)(type >> 8), (byte)type, .. packet, .. new byte[Math.Max(0, 46 - packet.Length)]];
        Card.Queues[1].Transact(frame, 0);
    }

    private byte[] Receive(ushort type, Func<byte[], bool> wanted) =>
        TryReceive(type, wanted, TimeSpan.FromSeconds(20)) ?? throw new TimeoutException($"No frame of type 0x{type:x} came.");

    /// <summary>The next frame of a kind; others are passed over.</summary>
    private byte[]? TryReceive(ushort type, Func<byte[], bool> wanted, TimeSpan limit)
    {
        var clock = Stopwatch.StartNew();
        while (clock.Elapsed < limit)
        {
            if (!Card.Queues[0].TryGetUsed(out UsedBuffer used))
            {
                Thread.Sleep(1);
                continue;
            }
            byte[] frame = Card.Queues[0].Read(used)[NetHeader..];
            Listen();
            if (BinaryPrimitives.ReadUInt16BigEndian(frame.AsSpan(12)) == type && wanted(frame))
                return frame;
        }
        return null;
    }

    private static ushort Checksum(ReadOnlySpan<byte> bytes, uint sum)
    {
        for (int i = 0; i + 1 < bytes.Length; i += 2)
            sum += BinaryPrimitives.ReadUInt16BigEndian(bytes[i..]);
        if (bytes.Length % 2 != 0)
            sum += (uint)bytes[^1] << 8;
        while (sum >> 16 != 0)
            sum = (sum & 0xFFFF) + (sum >> 16);
        return (ushort)~sum;
    }
}
