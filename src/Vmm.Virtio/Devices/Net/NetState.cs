namespace Vmm.Virtio.Devices.Net;

/// <summary>The saved state of a network card: what a driver told it by its control queue.</summary>
/// <param name="Mac">Its address.</param>
/// <param name="Modes">Receive modes.</param>
/// <param name="Unicast">The filter's unicast addresses; null for all.</param>
/// <param name="Multicast">The filter's multicast addresses; null for all.</param>
/// <param name="EnabledPairs">Pairs of queues in use, at least 1.</param>
/// <param name="GuestOffloads">What the driver handles; null before it was ready.</param>
/// <param name="LinkUp">Whether the cable is plugged in.</param>
public sealed record NetState(
    MacAddress Mac,
    NetReceiveModes Modes,
    IReadOnlyList<MacAddress>? Unicast,
    IReadOnlyList<MacAddress>? Multicast,
    int EnabledPairs,
    ulong? GuestOffloads,
    bool LinkUp) : VirtioDeviceState(CurrentVersion)
{
    /// <summary>The version of this shape.</summary>
    public const int CurrentVersion = 1;
}
