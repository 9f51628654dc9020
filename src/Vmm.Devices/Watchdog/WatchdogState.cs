using Vmm.Devices.Pci;

namespace Vmm.Devices.Watchdog;

/// <summary>Saved state of an <see cref="I6300EsbWatchdog"/>.</summary>
public sealed record WatchdogState
{
    /// <summary>The version this program writes and reads.</summary>
    public const int CurrentVersion = 1;

    /// <summary>Version of this record's layout.</summary>
    public int Version { get; init; } = CurrentVersion;

    /// <summary>PCI configuration space, with the configuration and lock registers.</summary>
    public PciConfigurationState Configuration { get; init; } = new();

    /// <summary>Preload value 1, 20 bits.</summary>
    public uint Preload1 { get; init; }

    /// <summary>Preload value 2, 20 bits.</summary>
    public uint Preload2 { get; init; }

    /// <summary>The first stage's interrupt is active.</summary>
    public bool InterruptActive { get; init; }

    /// <summary>The second stage expired since the guest last cleared this.</summary>
    public bool TimedOut { get; init; }

    /// <summary>How much of the unlocking sequence was seen: 0 to 2 writes.</summary>
    public int UnlockStep { get; init; }

    /// <summary>The stage that counts: 1 or 2; 0 for none.</summary>
    public int Stage { get; init; }

    /// <summary>What is left of the stage.</summary>
    public TimeSpan Remaining { get; init; }
}
