namespace Vmm.Exec;

/// <summary>What the guest's init can fail at before the command runs. The numbers are between it and us alone.</summary>
internal enum InitStep
{
    LoadModule = 1,
    MountShare,
    MountUpper,
    MakeDirectory,
    MountOverlay,
    Mount,
    EnterRoot,
    OpenPort,
    MakePipe,
    MakeThread,
    ChangeDirectory,
    StartCommand,
}

/// <summary>How it ended.</summary>
internal enum InitEnd
{
    /// <summary>The command ended by itself: the low byte is its exit code.</summary>
    Exited,

    /// <summary>A signal ended the command: the low byte is its number.</summary>
    Signalled,

    /// <summary>The command could not be executed: the low byte is errno.</summary>
    NotExecuted,

    /// <summary>A step failed: the low byte is errno, above it are an index and the step.</summary>
    Failed,
}

/// <summary>The number by which the guest's init says how it ended, at the exit port: end, step, index and a value, a byte each.</summary>
/// <param name="Value">The number.</param>
internal readonly record struct InitCode(uint Value)
{
    internal InitEnd End => (InitEnd)(Value >> 24);

    internal InitStep Step => (InitStep)(Value >> 16 & 0xFF);

    internal int Index => (int)(Value >> 8 & 0xFF);

    internal int Low => (int)(Value & 0xFF);

    /// <summary>A failure, to which errno is added.</summary>
    internal static uint Failure(InitStep step, int index) => (uint)InitEnd.Failed << 24 | (uint)step << 16 | (uint)Math.Min(index, 255) << 8;
}
