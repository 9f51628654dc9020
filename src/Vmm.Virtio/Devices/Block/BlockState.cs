namespace Vmm.Virtio.Devices.Block;

/// <summary>Saved state of a <see cref="BlockDevice"/>. What is in the image is the image's.</summary>
/// <param name="WriteBack">Whether the driver left the write cache on.</param>
/// <param name="Capacity">The size that the guest saw, in sectors of 512 bytes: the image must not be smaller where it is restored.</param>
public sealed record BlockState(bool WriteBack, ulong Capacity) : VirtioDeviceState(CurrentVersion)
{
    /// <summary>The version this program writes and reads.</summary>
    public const int CurrentVersion = 1;
}
