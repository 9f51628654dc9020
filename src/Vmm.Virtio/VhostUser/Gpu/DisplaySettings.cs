using Vmm.Core;

namespace Vmm.Virtio.VhostUser.Gpu;

/// <summary>The display of a graphics card that an external back-end serves. Nobody looks at it but who reads the screenshot.</summary>
public sealed record DisplaySettings
{
    /// <summary>The least width and height. Pixels.</summary>
    public const int LeastWidth = 320, LeastHeight = 200;

    /// <summary>The greatest width and height: what a detailed timing of an EDID has room for, at 60 Hz. Pixels.</summary>
    public const int MostWidth = 4088, MostHeight = 2400;

    /// <summary>The width is a multiple of it: drivers round to that. Pixels.</summary>
    public const int WidthStep = 8;

    /// <summary>What the guest is told, in pixels: a multiple of 8 from 320 to 4088. The guest may set another one.</summary>
    public int Width { get; init; } = 1024;

    /// <summary>What the guest is told, in pixels: 200 to 2400. The guest may set another one.</summary>
    public int Height { get; init; } = 768;

    /// <summary>Where the picture is written to, as a PPM, while it changes and at the end; null for nowhere.</summary>
    public string? Screenshot { get; init; }

    /// <summary>At least so long between two writings of the picture. Milliseconds.</summary>
    internal int ScreenshotInterval { get; init; } = 1_000;

    /// <summary>How long a back-end may take to read an answer. Milliseconds.</summary>
    internal int Reply { get; init; } = 1_000;

    /// <summary>Refuses a display that cannot be.</summary>
    /// <exception cref="VmmException">It cannot.</exception>
    public void Validate()
    {
        if (Width is < LeastWidth or > MostWidth || Width % WidthStep != 0)
            throw VmmException.Configuration($"a display cannot be {Width} pixels wide; use a multiple of {WidthStep} from {LeastWidth} to {MostWidth}.");
        if (Height is < LeastHeight or > MostHeight)
            throw VmmException.Configuration($"a display cannot be {Height} pixels high; use {LeastHeight} to {MostHeight}.");
    }
}
