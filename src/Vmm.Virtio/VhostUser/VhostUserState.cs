namespace Vmm.Virtio.VhostUser;

/// <summary>Saved state of a device with an external back-end.</summary>
/// <param name="BackEnd">What the back-end gave, which only one of its kind can read; null where it has no state to give.</param>
public sealed record VhostUserState(byte[]? BackEnd) : VirtioDeviceState(CurrentVersion)
{
    /// <summary>The version this program writes and reads.</summary>
    public const int CurrentVersion = 1;
}
