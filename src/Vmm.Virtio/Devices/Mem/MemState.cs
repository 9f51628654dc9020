namespace Vmm.Virtio.Devices.Mem;

/// <summary>Saved state of a <see cref="MemDevice"/>. What is in the plugged blocks is guest memory, saved as such.</summary>
/// <param name="Address">Guest-physical start of the region.</param>
/// <param name="RegionSize">Bytes of the region.</param>
/// <param name="UsableRegionSize">Bytes of it that the driver may ask for.</param>
/// <param name="RequestedSize">Bytes that the driver shall plug.</param>
/// <param name="Plugged">One bit a block, 64 to a word, the lowest first: set for a plugged one.</param>
public sealed record MemState(ulong Address, ulong RegionSize, ulong UsableRegionSize, ulong RequestedSize, ulong[] Plugged) : VirtioDeviceState(CurrentVersion)
{
    /// <summary>The version this program writes and reads.</summary>
    public const int CurrentVersion = 1;
}
