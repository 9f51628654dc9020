namespace Vmm.Machine;

/// <summary>How a machine's run ended.</summary>
public enum VmExitReason
{
    /// <summary>The guest powered off.</summary>
    PowerOff,

    /// <summary>The guest asked for a reset, and the machine was told to end then (on_reboot=exit).</summary>
    Reboot,

    /// <summary>The guest's kernel reported a panic (pvpanic).</summary>
    Panic,

    /// <summary>A vCPU shut down: a fault while delivering a double fault.</summary>
    TripleFault,

    /// <summary>KVM could not go on with the guest.</summary>
    KvmInternalError,

    /// <summary>The guest ended it with a code of its own (<c>--debug-exit on</c>): <see cref="VmExit.GuestCode"/>.</summary>
    GuestExit,

    /// <summary>The host failed the machine.</summary>
    HostError,

    /// <summary>Somebody ended it from outside: the console's escape key, a signal, the library's caller.</summary>
    Stopped,
}

/// <summary>How a machine's run ended, and what there is to say about it.</summary>
/// <param name="Reason">Why.</param>
/// <param name="Message">One sentence; empty for an ordinary power-off.</param>
/// <param name="Report">Several lines for somebody who looks for the cause (registers, code, last console lines), or null.</param>
public sealed record VmExit(VmExitReason Reason, string Message = "", string? Report = null)
{
    /// <summary>The guest's own code, for <see cref="VmExitReason.GuestExit"/>; 0 says that all is well.</summary>
    public uint GuestCode { get; init; }
}
