using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary><c>--metrics file=PATH,interval=SECONDS</c>: counters of every device and queue as JSON lines.</summary>
/// <param name="File">The file that lines are appended to; null for none.</param>
/// <param name="Interval">Seconds from one line to the next, 1 to 86400; a last line is written at the end.</param>
public sealed record MetricsConfig(string? File = null, int Interval = 10) : IConfigSection
{
    /// <summary>The section in files and the environment.</summary>
    public static readonly SectionSchema Section = new("metrics", ["file", "interval"], OptionShape.Fields);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--metrics", "file=PATH[,interval=SECONDS]",
        "The file to append counters to, a JSON object to a line. Default: none; interval=10.",
        "metrics", null, OptionShape.Fields, ["file=", "interval="]);

    /// <summary>Reads and checks the section.</summary>
    /// <exception cref="VmmException">A value is wrong.</exception>
    public static MetricsConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        return new MetricsConfig(fields.Path("file"), fields.Number("interval", 1, 86400) ?? 10);
    }

    void IConfigSection.WriteTo(IConfigWriter writer)
    {
        writer.Text("file", File);
        writer.Number("interval", Interval);
    }
}
