namespace Vmm.Virtio.Devices.Balloon;

/// <summary>Saved state of a <see cref="BalloonDevice"/>.</summary>
public sealed record BalloonState() : VirtioDeviceState(CurrentVersion)
{
    /// <summary>The version this program writes and reads.</summary>
    public const int CurrentVersion = 1;

    /// <summary>num_pages: pages of 4 KiB that are wanted in the balloon.</summary>
    public uint NumPages { get; init; }

    /// <summary>actual: pages that the driver said are in it.</summary>
    public uint Actual { get; init; }

    /// <summary>The pages in it: number of the first and count, alternating, in ascending order, not touching.</summary>
    public IReadOnlyList<uint> Inflated { get; init; } = [];
}
