namespace Vmm.Virtio.Devices.Rng;

/// <summary>Saved state of an <see cref="RngDevice"/>: it remembers nothing.</summary>
public sealed record RngState() : VirtioDeviceState(CurrentVersion)
{
    /// <summary>The version this program writes and reads.</summary>
    public const int CurrentVersion = 1;
}
