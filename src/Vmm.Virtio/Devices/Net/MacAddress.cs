using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using Vmm.Core.Interop;

namespace Vmm.Virtio.Devices.Net;

/// <summary>An Ethernet address.</summary>
/// <param name="Value">Its 48 bits, the first byte uppermost.</param>
public readonly record struct MacAddress(ulong Value)
{
    /// <summary>Bytes.</summary>
    public const int Length = 6;

    /// <summary>ff:ff:ff:ff:ff:ff.</summary>
    public static MacAddress Broadcast => new(0xFFFF_FFFF_FFFF);

    /// <summary>Whether it is a group's, the broadcast address included.</summary>
    public bool IsMulticast => (Value >> 40 & 1) != 0;

    /// <summary>Reads it from the wire.</summary>
    /// <param name="bytes">At least six.</param>
    public static MacAddress From(ReadOnlySpan<byte> bytes) =>
        new(((ulong)BinaryPrimitives.ReadUInt32BigEndian(bytes) << 16) | BinaryPrimitives.ReadUInt16BigEndian(bytes[4..]));

    /// <summary>Writes it as on the wire.</summary>
    /// <param name="bytes">At least six.</param>
    public void CopyTo(Span<byte> bytes)
    {
        BinaryPrimitives.WriteUInt32BigEndian(bytes, (uint)(Value >> 16));
        BinaryPrimitives.WriteUInt16BigEndian(bytes[4..], (ushort)Value);
    }

    /// <summary>A random address of one station, marked as locally administered.</summary>
    public static unsafe MacAddress Random()
    {
        // The kernel's generator, not the framework's: that one needs OpenSSL on the host. So few bytes never fail.
        byte* buffer = stackalloc byte[Length];
        _ = LibC.getrandom(buffer, Length, 0);
        var bytes = new Span<byte>(buffer, Length);
        bytes[0] = (byte)((bytes[0] & 0xFC) | 2);
        return From(bytes);
    }

    /// <summary>Reads <c>52:54:00:12:34:56</c>.</summary>
    public static bool TryParse([NotNullWhen(true)] string? text, out MacAddress address)
    {
        address = default;
        if (text is not { Length: 17 })
            return false;
        ulong value = 0;
        for (int i = 0; i < Length; i++)
        {
            if (i > 0 && text[(i * 3) - 1] != ':')
                return false;
            if (!byte.TryParse(text.AsSpan(i * 3, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out byte part))
                return false;
            value = (value << 8) | part;
        }
        address = new MacAddress(value);
        return true;
    }

    /// <inheritdoc/>
    public override string ToString() =>
        $"{(byte)(Value >> 40):x2}:{(byte)(Value >> 32):x2}:{(byte)(Value >> 24):x2}:{(byte)(Value >> 16):x2}:{(byte)(Value >> 8):x2}:{(byte)Value:x2}";
}
