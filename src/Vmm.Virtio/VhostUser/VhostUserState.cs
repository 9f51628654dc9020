using Vmm.Virtio.Devices.Net;

namespace Vmm.Virtio.VhostUser;

/// <summary>Saved state of a device with an external back-end.</summary>
/// <param name="BackEnd">What the back-end gave, which only one of its kind can read; null where it has no state to give.</param>
public sealed record VhostUserState(byte[]? BackEnd) : VirtioDeviceState(CurrentVersion)
{
    /// <summary>The version this program writes and reads.</summary>
    public const int CurrentVersion = 1;

    /// <summary>What the driver set by a control queue; null where there is none.</summary>
    public NetControlState? Control { get; init; }
}

/// <summary>What the driver of a network card set by its control queue, beyond what the back-end knows.</summary>
/// <param name="Pairs">Pairs of queues in use.</param>
/// <param name="Mac">The card's address.</param>
public sealed record NetControlState(int Pairs, MacAddress Mac);
