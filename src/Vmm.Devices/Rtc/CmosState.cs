namespace Vmm.Devices.Rtc;

/// <summary>Saved state of a <see cref="CmosRtc"/>.</summary>
public sealed record CmosState
{
    /// <summary>The version this program writes and reads.</summary>
    public const int CurrentVersion = 1;

    /// <summary>Version of this record's layout.</summary>
    public int Version { get; init; } = CurrentVersion;

    /// <summary>The register that the index port selected.</summary>
    public byte Index { get; init; }

    /// <summary>All 128 bytes; the time in them counts only while the clock is stopped.</summary>
    public byte[] Ram { get; init; } = [];

    /// <summary>How far the guest's clock is ahead of the host's UTC. It goes on by the host's clock while the guest is saved.</summary>
    public TimeSpan TimeOffset { get; init; }

    /// <summary>The guest changed the time while the clock was stopped.</summary>
    public bool TimeWritten { get; init; }

    /// <summary>The guest held the divider in reset while the clock was stopped.</summary>
    public bool DividerWasReset { get; init; }
}
