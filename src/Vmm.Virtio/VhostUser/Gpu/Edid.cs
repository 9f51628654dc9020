using System.Buffers.Binary;

namespace Vmm.Virtio.VhostUser.Gpu;

/// <summary>
/// What a display says of itself: one block of VESA's Enhanced EDID 1.4, with one detailed timing, which is the size that was asked for at 60 Hz
/// with reduced blanking (VESA CVT 1.1).
/// </summary>
internal static class Edid
{
    /// <summary>Bytes of it.</summary>
    public const int Length = 128;

    private const int RefreshRate = 60;

    // CVT, "reduced blanking": pixels and lines that show nothing, and microseconds at least between two pictures.
    private const int HorizontalBlank = 160, HorizontalFront = 48, HorizontalSync = 32;
    private const int VerticalFront = 3, VerticalSync = 6, LeastVerticalBack = 6;
    private const double LeastBlank = 460;

    // CVT's own steps, of 250 kHz, would be some frames in a second for the smallest pictures.
    private const int ClockStep = 10_000;

    private const int DescriptorLength = 18;
    private const int FirstDescriptor = 54;

    /// <summary>Writes it.</summary>
    /// <param name="edid"><see cref="Length"/> bytes.</param>
    /// <param name="width">Pixels: at most 4095.</param>
    /// <param name="height">Lines: at most 4095, and so few that the clock has room.</param>
    public static void Write(Span<byte> edid, int width, int height)
    {
        edid = edid[..Length];
        edid.Clear();
        // §3.3, the header; §3.4: the manufacturer "VMM", five bits for each letter, the product's number, and the year of its model.
        edid[1..7].Fill(0xFF);
        BinaryPrimitives.WriteUInt16BigEndian(edid[8..], (('V' - '@') << 10) | (('M' - '@') << 5) | ('M' - '@'));
        BinaryPrimitives.WriteUInt16LittleEndian(edid[10..], 1);
        (edid[16], edid[17]) = (0xFF, 2026 - 1990);
        (edid[18], edid[19]) = (1, 4);
        // §3.6: digital, 8 bits for a colour; centimetres; gamma 2.2; sRGB, and the first timing is the native one.
        edid[20] = 0xA0;
        (edid[21], edid[22]) = ((byte)(Millimetres(width) / 10), (byte)(Millimetres(height) / 10));
        (edid[23], edid[24]) = (220 - 100, 0x06);
        WriteColours(edid[25..35]);
        // §3.9: no standard timings.
        edid[38..FirstDescriptor].Fill(1);
        WriteTiming(edid.Slice(FirstDescriptor, DescriptorLength), width, height);
        // §3.10.3.4, a name; and two descriptors that are not used, by the tag 10h.
        Span<byte> name = edid.Slice(FirstDescriptor + DescriptorLength, DescriptorLength);
        name[3] = 0xFC;
        "vmm display\n "u8.CopyTo(name[5..]);
        edid[FirstDescriptor + (2 * DescriptorLength) + 3] = edid[FirstDescriptor + (3 * DescriptorLength) + 3] = 0x10;
        byte sum = 0;
        foreach (byte value in edid)
            sum += value;
        edid[^1] = (byte)-sum;
    }

    /// <summary>§3.7: what sRGB's red, green, blue and white are, in 1024ths of x and y.</summary>
    private static void WriteColours(Span<byte> colours)
    {
        ReadOnlySpan<double> points = [0.640, 0.330, 0.300, 0.600, 0.150, 0.060, 0.3127, 0.3290];
        for (int i = 0; i < points.Length; i++)
        {
            int value = (int)Math.Round(points[i] * 1024);
            // The two lowest bits of four values share a byte, the first of them uppermost.
            colours[i / 4] |= (byte)((value & 3) << (6 - (2 * (i % 4))));
            colours[2 + i] = (byte)(value >> 2);
        }
    }

    /// <summary>§3.10.2, a detailed timing.</summary>
    private static void WriteTiming(Span<byte> timing, int width, int height)
    {
        double line = ((1_000_000.0 / RefreshRate) - LeastBlank) / height;
        int verticalBlank = Math.Max((int)(LeastBlank / line) + 1, VerticalFront + VerticalSync + LeastVerticalBack);
        BinaryPrimitives.WriteUInt16LittleEndian(timing, (ushort)((long)RefreshRate * (width + HorizontalBlank) * (height + verticalBlank) / ClockStep));
        (timing[2], timing[3], timing[4]) = ((byte)width, HorizontalBlank, (byte)((width >> 8) << 4));
        (timing[5], timing[6], timing[7]) = ((byte)height, (byte)verticalBlank, (byte)(((height >> 8) << 4) | (verticalBlank >> 8)));
        (timing[8], timing[9], timing[10]) = (HorizontalFront, HorizontalSync, (VerticalFront << 4) | VerticalSync);
        int across = Millimetres(width), down = Millimetres(height);
        (timing[12], timing[13], timing[14]) = ((byte)across, (byte)down, (byte)(((across >> 8) << 4) | (down >> 8)));
        // Separate synchronisation, the horizontal one positive, as reduced blanking has it.
        timing[17] = 0x1A;
    }

    /// <summary>At 96 dots for an inch.</summary>
    private static int Millimetres(int pixels) => ((pixels * 254) + 480) / 960;
}
