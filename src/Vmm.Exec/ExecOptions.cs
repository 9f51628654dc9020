namespace Vmm.Exec;

/// <summary>How virtiofsd confines itself (its own <c>--sandbox</c>).</summary>
public enum ShareSandbox
{
    /// <summary>chroot where this process is root's, else none.</summary>
    Auto,

    /// <summary>Not at all.</summary>
    None,

    /// <summary>In namespaces of its own.</summary>
    Namespace,

    /// <summary>By chroot(2), which needs root.</summary>
    Chroot,
}

/// <summary>What is run in a guest, on what.</summary>
public sealed record ExecOptions
{
    /// <summary>The directory that is the guest's root.</summary>
    public string Root { get; init; } = "/";

    /// <summary>Whether the guest writes to that directory; else what it writes is gone with it.</summary>
    public bool IsWritable { get; init; }

    /// <summary>The command and its arguments; at least one.</summary>
    public required IReadOnlyList<string> Command { get; init; }

    /// <summary>The command's environment, as NAME=VALUE; PATH of it is where the command is looked for.</summary>
    public IReadOnlyList<string> Environment { get; init; } = [];

    /// <summary>Where in the guest's tree it begins.</summary>
    public string Directory { get; init; } = "/";

    /// <summary>Whether that has to be there; else it begins at / where it is not.</summary>
    public bool IsDirectoryNeeded { get; init; }

    /// <summary>The directory of the kernel's modules; null for what is in the root, or on the host, for the kernel's release.</summary>
    public string? Modules { get; init; }

    /// <summary>virtiofsd's program; null to look for it.</summary>
    public string? Virtiofsd { get; init; }

    /// <summary>How that confines itself.</summary>
    public ShareSandbox Sandbox { get; init; }

    /// <summary>How long it may take; null for as long as it likes.</summary>
    public TimeSpan? Timeout { get; init; }

    /// <summary>Whether the kernel says on its console what it does.</summary>
    public bool IsVerbose { get; init; }

    /// <summary>What the command reads; -1 for nothing.</summary>
    public int InputDescriptor { get; init; }

    /// <summary>Where what the command writes goes; -1 for nowhere.</summary>
    public int OutputDescriptor { get; init; } = 1;

    /// <summary>Where what it writes to standard error goes; -1 for nowhere.</summary>
    public int ErrorDescriptor { get; init; } = 2;
}

/// <summary>How a command in a guest ended.</summary>
/// <param name="Code">The command's own exit code, or as <c>docker run</c> has it: 125, 126, 127, 128 and a signal's number; 124 after a timeout.</param>
/// <param name="Message">One sentence, where it was not the command that ended with that code.</param>
/// <param name="Details">Lines for somebody who looks for the cause, or null.</param>
/// <param name="IsDetailed">Whether these are worth being seen by everybody.</param>
public sealed record ExecResult(int Code, string? Message = null, string? Details = null, bool IsDetailed = false)
{
    /// <summary>The machine, the kernel or virtiofsd failed before the command ended.</summary>
    public const int Failed = 125;

    /// <summary>The command took longer than it may (as timeout(1) has it).</summary>
    public const int TimedOut = 124;

    /// <summary>The command cannot be executed.</summary>
    public const int CannotExecute = 126;

    /// <summary>There is no such command.</summary>
    public const int NotFound = 127;
}
