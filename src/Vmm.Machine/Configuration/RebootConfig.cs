using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary>What happens when the guest reboots.</summary>
public enum RebootAction
{
    /// <summary>The program ends with its exit code for a reboot.</summary>
    Exit,

    /// <summary>The machine is reset and starts again, with the same payload.</summary>
    Restart,
}

/// <summary>
/// <c>--on-reboot exit|restart</c>. The default is to exit, as with Firecracker: a kernel started with panic=-1 would otherwise go
/// round for ever where nobody watches it.
/// </summary>
/// <param name="Action">What happens.</param>
public sealed record RebootConfig(RebootAction Action = RebootAction.Exit)
{
    private static readonly (string Word, RebootAction Value)[] s_words = [("exit", RebootAction.Exit), ("restart", RebootAction.Restart)];

    /// <summary>The section in files and the environment.</summary>
    public static readonly SectionSchema Section = new("on_reboot", [SectionSchema.Whole], OptionShape.Plain);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--on-reboot", "exit|restart", "What to do when the guest reboots. Default: exit, with exit code 3.",
        "on_reboot", null, OptionShape.Plain, ["exit", "restart"]);

    /// <summary>Reads and checks the section.</summary>
    /// <exception cref="VmmException">There is no such action.</exception>
    public static RebootConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        return new RebootConfig(fields.Word(SectionSchema.Whole, RebootAction.Exit, s_words));
    }

    /// <summary>The argument of <c>--on-reboot</c> that says the same.</summary>
    public string ToOptionText() => s_words[(int)Action].Word;
}
