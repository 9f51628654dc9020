using System.Buffers.Binary;

namespace Vmm.Virtio.VhostUser.Gpu;

/// <summary>The answers of a display that a back-end passes on to the guest: structures of VIRTIO 1.3 §5.7.6.</summary>
internal static class GpuAnswers
{
    /// <summary>Bytes of struct virtio_gpu_resp_display_info: a header, and 16 displays.</summary>
    public const int DisplayInfoLength = HeaderLength + (16 * 24);

    /// <summary>Bytes of struct virtio_gpu_resp_edid: a header, the length, padding, and room for 1024 bytes.</summary>
    public const int EdidLength = HeaderLength + (2 * sizeof(uint)) + 1024;

    private const int HeaderLength = 24;
    private const uint OkDisplayInfo = 0x1101;
    private const uint OkEdid = 0x1104;
    private const uint ErrInvalidScanoutId = 0x1202;

    /// <summary>One display of that size, which is on.</summary>
    /// <param name="answer"><see cref="DisplayInfoLength"/> bytes.</param>
    /// <param name="settings">The display.</param>
    public static void DisplayInfo(Span<byte> answer, DisplaySettings settings)
    {
        answer.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(answer, OkDisplayInfo);
        // Its place is 0, 0; the others are off.
        Span<byte> display = answer[HeaderLength..];
        BinaryPrimitives.WriteInt32LittleEndian(display[8..], settings.Width);
        BinaryPrimitives.WriteInt32LittleEndian(display[12..], settings.Height);
        BinaryPrimitives.WriteUInt32LittleEndian(display[16..], 1);
    }

    /// <summary>What a display says of itself; an error where there is none of that number, as a guest may ask for any.</summary>
    /// <param name="answer"><see cref="EdidLength"/> bytes.</param>
    /// <param name="settings">The display.</param>
    /// <param name="scanout">Its number.</param>
    public static void EdidOf(Span<byte> answer, DisplaySettings settings, uint scanout)
    {
        answer.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(answer, scanout == 0 ? OkEdid : ErrInvalidScanoutId);
        if (scanout != 0)
            return;
        BinaryPrimitives.WriteUInt32LittleEndian(answer[HeaderLength..], Edid.Length);
        Edid.Write(answer.Slice(HeaderLength + (2 * sizeof(uint)), Edid.Length), settings.Width, settings.Height);
    }
}
