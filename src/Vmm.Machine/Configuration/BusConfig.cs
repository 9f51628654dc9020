using Vmm.Core;
using Vmm.Virtio.Transport;

namespace Vmm.Machine.Configuration;

/// <summary><c>--bus pci|mmio</c>: where virtio devices go that do not say it themselves.</summary>
/// <param name="Default">That bus.</param>
public sealed record BusConfig(VirtioBus Default = VirtioBus.Pci)
{
    /// <summary>The words of every <c>bus=</c>.</summary>
    internal static readonly (string Word, VirtioBus Value)[] Words = [("pci", VirtioBus.Pci), ("mmio", VirtioBus.Mmio)];

    /// <summary>The section in files and the environment.</summary>
    public static readonly SectionSchema Section = new("bus", [SectionSchema.Whole], OptionShape.Plain);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--bus", "pci|mmio", "The bus of virtio devices that have no bus= of their own. Default: pci.", "bus", null, OptionShape.Plain, ["pci", "mmio"]);

    /// <summary>Reads and checks the section.</summary>
    /// <exception cref="VmmException">It is no bus.</exception>
    public static BusConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        return new BusConfig(fields.Word(SectionSchema.Whole, VirtioBus.Pci, Words));
    }

    /// <summary>The argument of the option that says the same.</summary>
    public string ToOptionText() => NameOf(Default)!;

    internal static string? NameOf(VirtioBus? bus) => bus switch { null => null, VirtioBus.Mmio => "mmio", _ => "pci" };
}
