namespace Vmm.Virtio.Devices.Net;

/// <summary>Receive modes that a driver turns on and off (VIRTIO 1.3 §5.1.6.5.1).</summary>
[Flags]
public enum NetReceiveModes : byte
{
    /// <summary>Only what the tables say.</summary>
    None = 0,

    /// <summary>VIRTIO_NET_CTRL_RX_PROMISC: everything, whatever the other modes say.</summary>
    Promiscuous = 1,

    /// <summary>VIRTIO_NET_CTRL_RX_ALLMULTI: all multicast.</summary>
    AllMulticast = 2,

    /// <summary>VIRTIO_NET_CTRL_RX_ALLUNI: all unicast.</summary>
    AllUnicast = 4,

    /// <summary>VIRTIO_NET_CTRL_RX_NOMULTI: no multicast.</summary>
    NoMulticast = 8,

    /// <summary>VIRTIO_NET_CTRL_RX_NOUNI: no unicast.</summary>
    NoUnicast = 16,

    /// <summary>VIRTIO_NET_CTRL_RX_NOBCAST: no broadcast.</summary>
    NoBroadcast = 32,
}

/// <summary>
/// Which frames the driver wants, by where they are sent to. Never changed but replaced, so that the threads of all queues use it
/// without a lock.
/// </summary>
internal sealed class NetFilter
{
    /// <summary>
    /// Addresses of each kind that are kept. For a longer table the device may receive more than was asked for: all of that kind.
    /// </summary>
    public const int TableSize = 64;

    private readonly MacAddress[] _unicast;
    private readonly MacAddress[] _multicast;

    /// <summary>Makes one.</summary>
    /// <param name="station">The card's own address.</param>
    /// <param name="modes">Its modes.</param>
    /// <param name="unicast">Further unicast addresses; null for all.</param>
    /// <param name="multicast">Multicast addresses; null for all.</param>
    public NetFilter(MacAddress station, NetReceiveModes modes, MacAddress[]? unicast, MacAddress[]? multicast)
    {
        Station = station;
        Modes = modes;
        Unicast = unicast;
        Multicast = multicast;
        _unicast = unicast ?? [];
        _multicast = multicast ?? [];
    }

    public MacAddress Station { get; }

    public NetReceiveModes Modes { get; }

    public MacAddress[]? Unicast { get; }

    public MacAddress[]? Multicast { get; }

    /// <summary>Whether every frame is wanted, so that there is nothing to look at.</summary>
    public bool TakesAll => (Modes & NetReceiveModes.Promiscuous) != 0;

    /// <summary>As a card begins: a driver that does not filter gets everything.</summary>
    public static NetFilter Initial(MacAddress station) => new(station, NetReceiveModes.Promiscuous, [], []);

    public NetFilter With(MacAddress station) => new(station, Modes, Unicast, Multicast);

    public NetFilter With(NetReceiveModes mode, bool on) => new(Station, on ? Modes | mode : Modes & ~mode, Unicast, Multicast);

    public NetFilter With(MacAddress[]? unicast, MacAddress[]? multicast) => new(Station, Modes, unicast, multicast);

    /// <summary>Whether a frame to this address is wanted.</summary>
    public bool Wants(MacAddress destination)
    {
        if (TakesAll)
            return true;
        if (destination == MacAddress.Broadcast)
            return (Modes & NetReceiveModes.NoBroadcast) == 0;
        if (destination.IsMulticast)
        {
            return (Modes & NetReceiveModes.NoMulticast) == 0
                && ((Modes & NetReceiveModes.AllMulticast) != 0 || Multicast == null || Array.IndexOf(_multicast, destination) >= 0);
        }
        return (Modes & NetReceiveModes.NoUnicast) == 0
            && ((Modes & NetReceiveModes.AllUnicast) != 0 || destination == Station || Unicast == null || Array.IndexOf(_unicast, destination) >= 0);
    }
}
