using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary><c>--balloon size=SIZE,…</c>: a virtio balloon, by which a guest gives memory back.</summary>
/// <param name="Size">Bytes that the guest is asked to give up from the start; whole pages, at most its memory.</param>
/// <param name="DeflateOnOom">Whether the guest may take memory back when it runs out of it.</param>
/// <param name="FreePageReporting">Whether the guest reports memory that it does not use, which the host then takes.</param>
/// <param name="StatisticsInterval">Seconds between two questions for the guest's memory statistics: 1 or more; 0 for none.</param>
/// <param name="Virtio">Name, bus and layout.</param>
public sealed record BalloonConfig(ulong Size, bool DeflateOnOom, bool FreePageReporting, int StatisticsInterval, VirtioOptions Virtio) : IConfigSection
{
    /// <summary>The section in files and the environment.</summary>
    public static readonly SectionSchema Section = new(
        "balloon", ["size", "deflate_on_oom", "free_page_reporting", "statistics_interval", .. VirtioOptions.Keys], OptionShape.Fields);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--balloon", "size=SIZE[,deflate_on_oom=on|off][,free_page_reporting=on|off][,statistics_interval=SECONDS]" + VirtioOptions.Syntax,
        "A balloon: size is what the guest is asked to give back at its start; 0 for nothing. Default: none.",
        "balloon", null, OptionShape.Fields,
        ["size=", "deflate_on_oom=on", "free_page_reporting=on", "statistics_interval=", .. VirtioOptions.Words]);

    /// <summary>Reads and checks the section; null where nothing is said of it.</summary>
    /// <exception cref="VmmException">A value is wrong.</exception>
    public static BalloonConfig? From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        if (fields.All.Count == 0)
            return null;
        ulong size = fields.Size("size", 0, 0, MemoryConfig.Most);
        if (size % 4096 != 0)
            throw OptionFields.Error(fields.Find("size")!, $"'size={ByteSize.Format(size)}' is not a multiple of 4K, the unit of a balloon.");
        return new BalloonConfig(
            size, fields.Flag("deflate_on_oom", false), fields.Flag("free_page_reporting", false), fields.Number("statistics_interval", 0, 86400) ?? 0,
            VirtioOptions.From(fields));
    }

    void IConfigSection.WriteTo(IConfigWriter writer)
    {
        writer.Size("size", Size);
        writer.Flag("deflate_on_oom", DeflateOnOom);
        writer.Flag("free_page_reporting", FreePageReporting);
        writer.Number("statistics_interval", StatisticsInterval);
        Virtio.WriteTo(writer);
    }
}
