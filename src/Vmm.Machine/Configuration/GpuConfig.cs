using Vmm.Core;
using Vmm.Virtio.VhostUser.Gpu;

namespace Vmm.Machine.Configuration;

/// <summary><c>--gpu socket=PATH,…</c>: a virtio graphics card, served by an external back-end such as QEMU's vhost-user-gpu, with a display that nobody sees.</summary>
/// <param name="Width">What the display tells of itself: a multiple of 8 from 320 to 4088 pixels.</param>
/// <param name="Height">Likewise: 200 to 2400 pixels.</param>
/// <param name="Screenshot">The file that shows the last picture, as a PPM; null for none.</param>
/// <param name="QueueSize">Descriptors of the control queue: a power of two from 4 to 1024.</param>
/// <param name="BackEnd">Where it is.</param>
/// <param name="Virtio">Name, bus and layout.</param>
public sealed record GpuConfig(int Width, int Height, string? Screenshot, int QueueSize, BackEndOptions BackEnd, VirtioOptions Virtio) : IConfigSection
{
    /// <summary>The section in files and the environment: a list.</summary>
    public static readonly SectionSchema Section = new("gpu", ["width", "height", "screenshot", "queue_size", .. BackEndOptions.Keys, .. VirtioOptions.Keys], OptionShape.Fields, Repeats: true);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--gpu", "[width=PIXELS][,height=PIXELS][,screenshot=FILE][,queue_size=N]" + BackEndOptions.Syntax + VirtioOptions.Syntax,
        "A graphics card that a vhost-user back-end serves (vhost-user-gpu), with a display of that size, which nobody sees but in screenshot (PPM). Default: 1024 by 768. Give it once for each.",
        "gpu", null, OptionShape.Fields, ["width=", "height=", "screenshot=", "queue_size=", .. BackEndOptions.Words, .. VirtioOptions.Words]);

    /// <summary>Reads and checks one.</summary>
    /// <exception cref="VmmException">A value is wrong or there is no back-end.</exception>
    public static GpuConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        var otherwise = new DisplaySettings();
        int width = fields.Number("width", DisplaySettings.LeastWidth, DisplaySettings.MostWidth) ?? otherwise.Width;
        if (width % DisplaySettings.WidthStep != 0)
            throw OptionFields.Error(fields.Find("width")!, $"'width={width}' is no multiple of {DisplaySettings.WidthStep}, as drivers want it; write {width / DisplaySettings.WidthStep * DisplaySettings.WidthStep}.");
        int height = fields.Number("height", DisplaySettings.LeastHeight, DisplaySettings.MostHeight) ?? otherwise.Height;
        return new GpuConfig(width, height, fields.Path("screenshot"), DiskConfig.QueueSizeOf(fields, 256), BackEndOptions.From(fields), VirtioOptions.From(fields));
    }

    void IConfigSection.WriteTo(IConfigWriter writer)
    {
        writer.Number("width", Width);
        writer.Number("height", Height);
        writer.Text("screenshot", Screenshot);
        writer.Number("queue_size", QueueSize);
        BackEnd.WriteTo(writer);
        Virtio.WriteTo(writer);
    }
}
