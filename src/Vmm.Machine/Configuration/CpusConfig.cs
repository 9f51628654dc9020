using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary><c>--cpus boot=N[,max=N]</c>: the virtual processors.</summary>
/// <param name="Boot">How many there are when the guest starts: 1 to <see cref="Limit"/>.</param>
/// <param name="Max">How many there can ever be; null for as many as at the start. Not below <paramref name="Boot"/>.</param>
public sealed record CpusConfig(int Boot = 1, int? Max = null) : IConfigSection
{
    /// <summary>Where the vCPUs' threads run.</summary>
    public ConfigList<CpuAffinity> Affinity { get; init; } = ConfigList<CpuAffinity>.Empty;

    /// <summary>More than this is a typing error. What KVM allows on this host is less, and is checked when the machine is made.</summary>
    public const int Limit = 1024;

    /// <summary>The section in files and the environment.</summary>
    public static readonly SectionSchema Section = new("cpus", ["boot", "max", "affinity"], OptionShape.Fields);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--cpus", "boot=N[,max=N][,affinity=[VCPU@CPUS,…]]",
        "Virtual processors at the start, and how many there can be at most; the host's processors that each runs on (0@0-3+6). Default: boot=1, max as boot.",
        "cpus", null, OptionShape.Fields, ["boot=", "max=", "affinity="]);

    /// <summary>How many there can ever be.</summary>
    public int EffectiveMax => Max ?? Boot;

    /// <summary>Reads and checks the section.</summary>
    /// <exception cref="VmmException">A number is out of range, or max is below boot.</exception>
    public static CpusConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        var config = new CpusConfig(fields.Number("boot", 1, Limit) ?? 1, fields.Number("max", 1, Limit));
        if (config.Max < config.Boot)
        {
            throw VmmException.Configuration(
                $"{fields.OriginOf("max")}: max={config.Max} is below boot={config.Boot}; raise max or leave it out.");
        }

        return config with { Affinity = CpuAffinity.From(fields, "affinity", "vCPU", config.Boot) };
    }

    /// <summary>The argument of <c>--cpus</c> that says the same.</summary>
    public string ToOptionText() => OptionTextWriter.Of(this);

    void IConfigSection.WriteTo(IConfigWriter writer)
    {
        writer.Number("boot", Boot);
        writer.Number("max", Max);
        writer.List("affinity", CpuAffinity.ToItems(Affinity));
    }
}
