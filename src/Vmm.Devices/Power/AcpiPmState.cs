namespace Vmm.Devices.Power;

/// <summary>Saved state of an <see cref="AcpiPm"/>.</summary>
public sealed record AcpiPmState
{
    /// <summary>The version this program writes and reads.</summary>
    public const int CurrentVersion = 1;

    /// <summary>Version of this record's layout.</summary>
    public int Version { get; init; } = CurrentVersion;

    /// <summary>PM1 status register.</summary>
    public ushort Status { get; init; }

    /// <summary>PM1 enable register.</summary>
    public ushort Enable { get; init; }

    /// <summary>PM1 control register.</summary>
    public ushort Control { get; init; }

    /// <summary>The PM timer's count, in its own ticks and not cut to its width; it stands still while the guest is saved.</summary>
    public ulong TimerTicks { get; init; }
}
