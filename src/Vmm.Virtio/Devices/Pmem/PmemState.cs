namespace Vmm.Virtio.Devices.Pmem;

/// <summary>Saved state of a <see cref="PmemDevice"/>. What is in the memory is in its file, or, with discarded writes, lost.</summary>
/// <param name="Length">Bytes that the guest sees.</param>
public sealed record PmemState(ulong Length) : VirtioDeviceState(CurrentVersion)
{
    /// <summary>The version this program writes and reads.</summary>
    public const int CurrentVersion = 1;
}
