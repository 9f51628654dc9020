using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary><c>--acpi on|off</c>: whether the guest finds ACPI tables.</summary>
/// <param name="Enabled">On unless said otherwise. Off leaves the guest without a power button and a way to power itself off.</param>
public sealed record AcpiConfig(bool Enabled = true)
{
    /// <summary>The section in files and the environment.</summary>
    public static readonly SectionSchema Section = new("acpi", [SectionSchema.Whole], OptionShape.Plain);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--acpi", "on|off", "Whether the guest gets ACPI tables. Default: on.", "acpi", null, OptionShape.Plain, ["on", "off"]);

    /// <summary>Reads and checks the section.</summary>
    /// <exception cref="VmmException">The value is neither on nor off.</exception>
    public static AcpiConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        return new AcpiConfig(fields.Flag(SectionSchema.Whole, true));
    }

    /// <summary>The argument of <c>--acpi</c> that says the same.</summary>
    public string ToOptionText() => Enabled ? "on" : "off";
}
