using System.Runtime.InteropServices;

namespace Vmm.Virtio.VhostUser.Gpu;

/// <summary>Requests of a back-end to its display, VHOST_USER_GPU_* (vhost-user-gpu, "Message types").</summary>
internal enum GpuRequest : uint
{
    GetProtocolFeatures = 1,
    SetProtocolFeatures = 2,
    GetDisplayInfo = 3,
    CursorPos = 4,
    CursorPosHide = 5,
    CursorUpdate = 6,
    Scanout = 7,
    Update = 8,
    DmabufScanout = 9,
    DmabufUpdate = 10,
    GetEdid = 11,
    DmabufScanout2 = 12,
}

/// <summary>VHOST_USER_GPU_PROTOCOL_F_*, as masks.</summary>
internal static class GpuProtocolFeatures
{
    /// <summary>GET_EDID.</summary>
    public const ulong Edid = 1UL << 0;

    /// <summary>DMABUF_SCANOUT2.</summary>
    public const ulong Dmabuf2 = 1UL << 1;

    /// <summary>What is offered.</summary>
    public const ulong Implemented = Edid | Dmabuf2;
}

/// <summary>The header of every message, in native byte order: 12 bytes (vhost-user-gpu, "Header").</summary>
/// <param name="Request">What is asked or answered.</param>
/// <param name="Flags">REPLY in an answer. In a request it means nothing: a back-end in use leaves it undefined in UPDATE.</param>
/// <param name="Size">Bytes of payload that follow.</param>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct GpuHeader(uint Request, uint Flags, uint Size)
{
    /// <summary>Bytes of it.</summary>
    public const int Length = 12;

    /// <summary>Bit 2: an answer.</summary>
    public const uint Reply = 4;
}

/// <summary>"VhostUserGpuCursorPos": 12 bytes. VhostUserGpuCursorUpdate begins with it.</summary>
/// <param name="ScanoutId">Where the cursor is; a guest may say anything.</param>
/// <param name="X">Pixels from the left.</param>
/// <param name="Y">Pixels from the top.</param>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct GpuCursorPosition(uint ScanoutId, uint X, uint Y)
{
    /// <summary>Bytes of it.</summary>
    public const int Length = 12;

    /// <summary>Bytes of VhostUserGpuCursorUpdate: this, the hot spot, and 64 by 64 pixels.</summary>
    public const int UpdateLength = Length + (2 * sizeof(uint)) + (64 * 64 * sizeof(uint));
}

/// <summary>"VhostUserGpuScanout": 12 bytes.</summary>
/// <param name="ScanoutId">Which display.</param>
/// <param name="Width">Pixels; 0 where it is switched off.</param>
/// <param name="Height">Pixels.</param>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct GpuScanout(uint ScanoutId, uint Width, uint Height)
{
    /// <summary>Bytes of it.</summary>
    public const int Length = 12;
}

/// <summary>"VhostUserGpuUpdate": 20 bytes, behind which UPDATE has the pixels.</summary>
/// <param name="ScanoutId">Which display.</param>
/// <param name="X">Pixels from the left.</param>
/// <param name="Y">Pixels from the top.</param>
/// <param name="Width">Pixels.</param>
/// <param name="Height">Pixels.</param>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct GpuUpdate(uint ScanoutId, uint X, uint Y, uint Width, uint Height)
{
    /// <summary>Bytes of it.</summary>
    public const int Length = 20;
}

/// <summary>"VhostUserGpuDMABUFScanout": 40 bytes; DMABUF_SCANOUT2 has a modifier of 8 bytes behind it.</summary>
/// <param name="ScanoutId">Which display.</param>
/// <param name="X">Where in the dma-buf, in pixels.</param>
/// <param name="Y">Where in the dma-buf, in pixels.</param>
/// <param name="Width">Pixels; 0 where it is switched off.</param>
/// <param name="Height">Pixels.</param>
/// <param name="BufferWidth">Of the dma-buf.</param>
/// <param name="BufferHeight">Of the dma-buf.</param>
/// <param name="Stride">Of the dma-buf.</param>
/// <param name="Flags">Of the dma-buf.</param>
/// <param name="Fourcc">Format of its pixels.</param>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly record struct GpuDmabufScanout(
    uint ScanoutId, uint X, uint Y, uint Width, uint Height, uint BufferWidth, uint BufferHeight, uint Stride, uint Flags, int Fourcc)
{
    /// <summary>Bytes of it.</summary>
    public const int Length = 40;

    /// <summary>Bytes of it with the modifier.</summary>
    public const int Length2 = Length + sizeof(ulong);
}
