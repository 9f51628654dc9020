using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary>What happens when the guest's kernel reports a panic by pvpanic.</summary>
public enum PanicAction
{
    /// <summary>The machine ends at once.</summary>
    Exit,

    /// <summary>The guest goes on as far as it can: to the end of its report, into its reboot.</summary>
    Continue,
}

/// <summary><c>--on-panic exit|continue</c>.</summary>
/// <param name="Action">Exit unless said otherwise. <c>vmm test</c> lets the guest go on, for the sake of its report.</param>
public sealed record PanicConfig(PanicAction Action = PanicAction.Exit)
{
    private static readonly (string Word, PanicAction Value)[] s_words = [("exit", PanicAction.Exit), ("continue", PanicAction.Continue)];

    /// <summary>The section in files and the environment.</summary>
    public static readonly SectionSchema Section = new("on_panic", [SectionSchema.Whole], OptionShape.Plain);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--on-panic", "exit|continue", "What a panic that the guest's kernel reports (pvpanic) does: end the machine, or let it go on. Default: exit.",
        "on_panic", null, OptionShape.Plain, ["exit", "continue"]);

    /// <summary>Reads and checks the section.</summary>
    /// <exception cref="VmmException">The value is neither exit nor continue.</exception>
    public static PanicConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        return new PanicConfig(fields.Word(SectionSchema.Whole, PanicAction.Exit, s_words));
    }

    /// <summary>The argument of <c>--on-panic</c> that says the same.</summary>
    public string ToOptionText() => Action == PanicAction.Exit ? "exit" : "continue";
}
