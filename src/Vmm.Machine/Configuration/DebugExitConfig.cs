using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary><c>--debug-exit on|off</c>: whether the guest can end its machine with a code, at port 0xF4.</summary>
/// <param name="Enabled">Off unless said otherwise; <c>vmm test</c> and <c>vmm exec</c> have it on.</param>
public sealed record DebugExitConfig(bool Enabled = false)
{
    /// <summary>The section in files and the environment.</summary>
    public static readonly SectionSchema Section = new("debug_exit", [SectionSchema.Whole], OptionShape.Plain);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--debug-exit", "on|off", "Whether a guest's write to port 0xF4 ends the machine with that value as the exit code. Default: off.",
        "debug_exit", null, OptionShape.Plain, ["on", "off"]);

    /// <summary>Reads and checks the section.</summary>
    /// <exception cref="VmmException">The value is neither on nor off.</exception>
    public static DebugExitConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        return new DebugExitConfig(fields.Flag(SectionSchema.Whole, false));
    }

    /// <summary>The argument of <c>--debug-exit</c> that says the same.</summary>
    public string ToOptionText() => Enabled ? "on" : "off";
}
