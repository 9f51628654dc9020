using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary><c>--rng src=PATH</c>: a virtio entropy device.</summary>
/// <param name="Source">The file that random bytes are read from; null for the kernel's generator (getrandom).</param>
/// <param name="Virtio">Name, bus and layout.</param>
public sealed record RngConfig(string? Source, VirtioOptions Virtio) : IConfigSection
{
    private const string HostGenerator = "/dev/urandom";

    /// <summary>The section in files and the environment.</summary>
    public static readonly SectionSchema Section = new("rng", ["src", .. VirtioOptions.Keys], OptionShape.Fields);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--rng", "src=PATH" + VirtioOptions.Syntax,
        "A source of random numbers; src=/dev/urandom is the host's generator. Default: none.",
        "rng", null, OptionShape.Fields, ["src=/dev/urandom", .. VirtioOptions.Words]);

    /// <summary>Reads and checks the section; null where nothing is said of it.</summary>
    /// <exception cref="VmmException">A value is wrong.</exception>
    public static RngConfig? From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        if (fields.All.Count == 0)
            return null;
        string? source = fields.Path("src");
        return new RngConfig(source == HostGenerator ? null : source, VirtioOptions.From(fields));
    }

    void IConfigSection.WriteTo(IConfigWriter writer)
    {
        writer.Text("src", Source ?? HostGenerator);
        Virtio.WriteTo(writer);
    }
}
