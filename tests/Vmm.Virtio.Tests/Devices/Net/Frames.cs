using System.Buffers.Binary;
using Vmm.Virtio.Devices.Net;

namespace Vmm.Virtio.Tests.Devices.Net;

/// <summary>Makes frames, and takes them apart.</summary>
internal static class Frames
{
    public const int HeaderLength = 12;

    public static MacAddress Mac(string text) => MacAddress.TryParse(text, out MacAddress mac) ? mac : throw new ArgumentException(text, nameof(text));

    /// <summary>An Ethernet frame with an empty header before it.</summary>
    public static byte[] Ethernet(MacAddress to, int payload, int seed = 1, byte flags = 0, byte gsoType = 0)
    {
        byte[] frame = new byte[HeaderLength + 14 + payload];
        frame[0] = flags;
        frame[1] = gsoType;
        // Not the card's to pass on: it writes its own number there.
        frame[10] = frame[11] = 0xEE;
        to.CopyTo(frame.AsSpan(HeaderLength));
        Mac("02:00:00:00:00:99").CopyTo(frame.AsSpan(HeaderLength + 6));
        BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(HeaderLength + 12), 0x88B5);
        new Random(seed).NextBytes(frame.AsSpan(HeaderLength + 14));
        return frame;
    }

    /// <summary>What follows the header.</summary>
    public static byte[] Body(byte[] frame) => frame[HeaderLength..];

    /// <summary>An IPv4 packet's header, complete.</summary>
    public static byte[] Ipv4(uint from, uint to, byte protocol, int payload)
    {
        byte[] header = new byte[20];
        header[0] = 0x45;
        BinaryPrimitives.WriteUInt16BigEndian(header.AsSpan(2), (ushort)(20 + payload));
        header[8] = 64;
        header[9] = protocol;
        BinaryPrimitives.WriteUInt32BigEndian(header.AsSpan(12), from);
        BinaryPrimitives.WriteUInt32BigEndian(header.AsSpan(16), to);
        BinaryPrimitives.WriteUInt16BigEndian(header.AsSpan(10), (ushort)~Sum(header));
        return header;
    }

    /// <summary>The ones' complement sum of RFC 1071.</summary>
    public static ushort Sum(ReadOnlySpan<byte> bytes, uint start = 0)
    {
        ulong sum = start;
        for (int i = 0; i < bytes.Length; i += 2)
            sum += i + 1 < bytes.Length ? (uint)((bytes[i] << 8) | bytes[i + 1]) : (uint)(bytes[i] << 8);
        while (sum >> 16 != 0)
            sum = (sum & 0xFFFF) + (sum >> 16);
        return (ushort)sum;
    }

    /// <summary>The sum of the pseudo header of TCP and UDP over IPv4.</summary>
    public static ushort PseudoSum(uint from, uint to, byte protocol, int length) =>
        Sum([(byte)(from >> 24), (byte)(from >> 16), (byte)(from >> 8), (byte)from, (byte)(to >> 24), (byte)(to >> 16), (byte)(to >> 8), (byte)to,
            0, protocol, (byte)(length >> 8), (byte)length]);
}
