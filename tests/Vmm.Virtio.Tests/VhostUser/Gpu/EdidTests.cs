using System.Buffers.Binary;
using Vmm.Virtio.VhostUser.Gpu;

namespace Vmm.Virtio.Tests.VhostUser.Gpu;

/// <summary>What a display says of itself, read back by the standard's layout.</summary>
public sealed class EdidTests
{
    [Theory]
    [InlineData(320, 200)]
    [InlineData(640, 480)]
    [InlineData(1024, 768)]
    [InlineData(1280, 720)]
    [InlineData(1920, 1080)]
    [InlineData(3840, 2160)]
    [InlineData(4088, 2400)]
    public void It_says_the_size(int width, int height)
    {
        byte[] edid = Make(width, height);
        Timing timing = Timing.Read(edid);
        Assert.Equal((width, height), (timing.Width, timing.Height));
        Assert.InRange(timing.Rate, 59.8, 60.001);
        // At 96 dots for an inch.
        Assert.InRange(timing.Millimetres.Width, (width * 25.4 / 96) - 1, (width * 25.4 / 96) + 1);
        Assert.InRange(timing.Millimetres.Height, (height * 25.4 / 96) - 1, (height * 25.4 / 96) + 1);
        Assert.Equal(timing.Millimetres.Width / 10, edid[21]);
    }

    [Fact]
    public void Every_size_that_can_be_asked_for_is_said_and_has_its_checksum()
    {
        for (int width = DisplaySettings.LeastWidth; width <= DisplaySettings.MostWidth; width += 8 * DisplaySettings.WidthStep)
        {
            for (int height = DisplaySettings.LeastHeight; height <= DisplaySettings.MostHeight; height += 17)
            {
                byte[] edid = Make(width, height);
                Timing timing = Timing.Read(edid);
                Assert.Equal((width, height), (timing.Width, timing.Height));
                Assert.InRange(timing.Rate, 59.8, 60.001);
                Assert.Equal(0, (byte)edid.Sum(value => value));
            }
        }
    }

    [Fact]
    public void Its_bytes()
    {
        // Made by hand from VESA's tables; accepted by edid-decode 2025 without a failure.
        const string expected =
            "00ffffffffffff00" + "59ad010000000000ff24" + "0104" + "a01b147806" + "ee91a3544c99260f5054" + "000000" + "01010101010101010101010101010101"
            + "ec1500a04000163030203600" + "0fcb1000001a";
        byte[] edid = Make(1024, 768);
        Assert.Equal(expected, Convert.ToHexStringLower(edid)[..expected.Length]);
        Assert.Equal("000000fc00766d6d20646973706c61790a20", Convert.ToHexStringLower(edid.AsSpan(72, 18)));
        Assert.Equal("000000100000000000000000000000000000" + "000000100000000000000000000000000000" + "00", Convert.ToHexStringLower(edid.AsSpan(90, 37)));
    }

    private static byte[] Make(int width, int height)
    {
        byte[] edid = new byte[Edid.Length];
        Array.Fill(edid, (byte)0xAA);
        Edid.Write(edid, width, height);
        return edid;
    }

    /// <summary>A detailed timing (E-EDID 1.4 §3.10.2), as a driver reads it.</summary>
    private sealed record Timing(int Width, int Height, double Rate, (int Width, int Height) Millimetres)
    {
        public static Timing Read(ReadOnlySpan<byte> edid)
        {
            ReadOnlySpan<byte> t = edid.Slice(54, 18);
            int clock = BinaryPrimitives.ReadUInt16LittleEndian(t) * 10_000;
            int width = t[2] | ((t[4] & 0xF0) << 4), across = t[3] | ((t[4] & 0x0F) << 8);
            int height = t[5] | ((t[7] & 0xF0) << 4), down = t[6] | ((t[7] & 0x0F) << 8);
            int front = t[8] | ((t[11] & 0xC0) << 2), sync = t[9] | ((t[11] & 0x30) << 4);
            int lineFront = (t[10] >> 4) | ((t[11] & 0x0C) << 2), lineSync = (t[10] & 0xF) | ((t[11] & 3) << 4);
            Assert.InRange(front + sync, 1, across - 1);
            Assert.InRange(lineFront + lineSync, 1, down - 1);
            // 460 us without a picture, which reduced blanking has at least.
            Assert.InRange(1e6 * down * (width + across) / clock, 455, 1200);
            return new Timing(width, height, (double)clock / ((width + across) * (height + down)), (t[12] | ((t[14] & 0xF0) << 4), t[13] | ((t[14] & 0x0F) << 8)));
        }
    }
}
