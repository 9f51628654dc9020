using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary>What happens when a guest did not feed its watchdog.</summary>
public enum WatchdogReaction
{
    /// <summary>There is no watchdog.</summary>
    Off,

    /// <summary>The machine is reset, as a reboot of the guest is.</summary>
    Reset,

    /// <summary>The machine ends as after a power-off.</summary>
    PowerOff,

    /// <summary>Every processor gets a non-maskable interrupt; Linux panics of it where it is told to.</summary>
    Nmi,

    /// <summary>It is only logged.</summary>
    None,
}

/// <summary><c>--watchdog off|reset|poweroff|nmi|none</c>: an Intel 6300ESB watchdog (Linux: i6300esb), on PCI.</summary>
/// <param name="Reaction">What happens when it was not fed.</param>
public sealed record WatchdogConfig(WatchdogReaction Reaction = WatchdogReaction.Off)
{
    private static readonly (string Word, WatchdogReaction Value)[] s_words =
    [
        ("off", WatchdogReaction.Off), ("reset", WatchdogReaction.Reset), ("poweroff", WatchdogReaction.PowerOff), ("nmi", WatchdogReaction.Nmi),
        ("none", WatchdogReaction.None),
    ];

    /// <summary>The section in files and the environment.</summary>
    public static readonly SectionSchema Section = new("watchdog", [SectionSchema.Whole], OptionShape.Plain);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--watchdog", "off|reset|poweroff|nmi|none",
        "A watchdog (i6300esb), and what happens when the guest did not feed it. Default: off.",
        "watchdog", null, OptionShape.Plain, ["off", "reset", "poweroff", "nmi", "none"]);

    /// <summary>Reads and checks the section.</summary>
    /// <exception cref="VmmException">It is none of these.</exception>
    public static WatchdogConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        return new WatchdogConfig(fields.Word(SectionSchema.Whole, WatchdogReaction.Off, s_words));
    }

    /// <summary>The argument of the option that says the same.</summary>
    public string ToOptionText() => s_words[(int)Reaction].Word;
}
