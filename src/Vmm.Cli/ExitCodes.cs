namespace Vmm.Cli;

/// <summary>What the program's exit code says. Stable: scripts and CI jobs depend on them.</summary>
public static class ExitCodes
{
    /// <summary>The guest powered itself off, or the command did what it was asked.</summary>
    public const int Success = 0;

    /// <summary>The host refused something, a resource ran out, an output was closed, or the program has a mistake.</summary>
    public const int HostError = 1;

    /// <summary>Wrong arguments, configuration, or input files (kernel, initramfs, a log file that cannot be written).</summary>
    public const int BadArguments = 2;

    /// <summary>The guest rebooted, with <c>--on-reboot exit</c>.</summary>
    public const int Rebooted = 3;

    /// <summary>The guest's kernel panicked (it said so by pvpanic).</summary>
    public const int GuestPanic = 4;

    /// <summary>The guest's processor shut down by a triple fault.</summary>
    public const int TripleFault = 5;

    /// <summary>KVM cannot go on with the guest (KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_FAIL_ENTRY).</summary>
    public const int KvmInternalError = 6;

    /// <summary>Somebody ended the machine from its console, by Ctrl-A x.</summary>
    public const int EndedFromConsole = 7;

    /// <summary>A signal ended the machine: 128 and the signal's number.</summary>
    public static int Signal(int number) => 128 + number;

    /// <summary>The guest's own code (<c>--debug-exit on</c>), as it is; 255 for those that an exit code cannot be.</summary>
    public static int OfGuest(uint code) => (int)Math.Min(code, 255);

    /// <summary>All of them with their meaning, for the help and the documentation.</summary>
    public static IReadOnlyList<(string Code, string Meaning)> All { get; } =
    [
        ("0", "the guest powered off"),
        ("1", "host error: the host refused something, or standard output was closed"),
        ("2", "bad arguments, configuration or input files"),
        ("3", "the guest rebooted (with --on-reboot exit, the default)"),
        ("4", "the guest panicked"),
        ("5", "triple fault"),
        ("6", "KVM internal error"),
        ("7", "ended from the console (Ctrl-A x)"),
        ("0 to 255", "with --debug-exit on: the code that the guest wrote to port 0xF4"),
        ("128+n", "ended by signal n, as in 143 for SIGTERM"),
    ];
}
