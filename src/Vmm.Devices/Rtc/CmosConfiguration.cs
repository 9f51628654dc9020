namespace Vmm.Devices.Rtc;

/// <summary>What a <see cref="CmosRtc"/> is made with.</summary>
public sealed record CmosConfiguration
{
    /// <summary>Guest memory below 4 GiB, in bytes, counted from address 0.</summary>
    public ulong MemoryBelow4GiB { get; init; }

    /// <summary>Guest memory above 4 GiB, in bytes.</summary>
    public ulong MemoryAbove4GiB { get; init; }

    /// <summary>How far the guest's clock is ahead of the host's; a guest that expects local time gets the zone's offset here.</summary>
    public TimeSpan TimeOffset { get; init; }
}
