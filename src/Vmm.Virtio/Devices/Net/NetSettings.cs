namespace Vmm.Virtio.Devices.Net;

/// <summary>
/// What the threads of all queues of a card go by. Each value is written by one thread at a time (the control queue's while it runs, the
/// machine's for the link) and read by the others at any time, by itself.
/// </summary>
internal sealed class NetSettings(MacAddress mac)
{
    private NetFilter _filter = NetFilter.Initial(mac);
    private ulong _offloads;
    private int _enabledPairs = 1;
    private bool _linkUp = true;
    private bool _announce;

    /// <summary>Which frames the driver wants; has the card's address.</summary>
    public NetFilter Filter
    {
        get => Volatile.Read(ref _filter);
        set => Volatile.Write(ref _filter, value);
    }

    /// <summary>What the driver handles, a consistent set of <see cref="NetFeatures.GuestOffloads"/>.</summary>
    public ulong Offloads
    {
        get => Volatile.Read(ref _offloads);
        set => Volatile.Write(ref _offloads, value);
    }

    /// <summary>Pairs of queues in use.</summary>
    public int EnabledPairs
    {
        get => Volatile.Read(ref _enabledPairs);
        set => Volatile.Write(ref _enabledPairs, value);
    }

    /// <summary>Whether the cable is plugged in.</summary>
    public bool LinkUp
    {
        get => Volatile.Read(ref _linkUp);
        set => Volatile.Write(ref _linkUp, value);
    }

    /// <summary>Whether the driver is asked to announce itself.</summary>
    public bool Announce
    {
        get => Volatile.Read(ref _announce);
        set => Volatile.Write(ref _announce, value);
    }
}
