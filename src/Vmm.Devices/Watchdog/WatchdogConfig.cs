namespace Vmm.Devices.Watchdog;

/// <summary>What happens when a guest did not keep its watchdog quiet.</summary>
public enum WatchdogAction
{
    /// <summary>The machine is reset.</summary>
    Reset,

    /// <summary>The machine is powered off.</summary>
    PowerOff,

    /// <summary>Every vCPU gets a non-maskable interrupt, for which Linux panics (unknown_nmi_panic) and makes a crash dump.</summary>
    Panic,

    /// <summary>The vCPUs are paused, for somebody to look.</summary>
    Pause,

    /// <summary>Nothing but a line in the log.</summary>
    None,
}

/// <summary>A watchdog.</summary>
/// <param name="Action">What happens when it expires.</param>
/// <param name="TimedOut">
/// The guest is to find that the watchdog expired before it was started: for a machine that is made anew after the reset that it caused.
/// </param>
public sealed record WatchdogConfig(WatchdogAction Action = WatchdogAction.Reset, bool TimedOut = false);
