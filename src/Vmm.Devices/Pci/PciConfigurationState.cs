namespace Vmm.Devices.Pci;

/// <summary>Saved state of a <see cref="PciConfigurationSpace"/>.</summary>
public sealed record PciConfigurationState
{
    /// <summary>The version this program writes and reads.</summary>
    public const int CurrentVersion = 1;

    /// <summary>Version of this record's layout.</summary>
    public int Version { get; init; } = CurrentVersion;

    /// <summary>The configuration space, cut after the last byte in use.</summary>
    public byte[] Bytes { get; init; } = [];
}
