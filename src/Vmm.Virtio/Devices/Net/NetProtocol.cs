using System.Runtime.InteropServices;

namespace Vmm.Virtio.Devices.Net;

/// <summary>Feature bits of a network card (VIRTIO 1.3 §5.1.3), as masks.</summary>
public static class NetFeatures
{
    /// <summary>VIRTIO_NET_F_CSUM: the device completes partial checksums.</summary>
    public const ulong Csum = 1UL << 0;

    /// <summary>VIRTIO_NET_F_GUEST_CSUM: the driver handles packets with partial checksums.</summary>
    public const ulong GuestCsum = 1UL << 1;

    /// <summary>VIRTIO_NET_F_CTRL_GUEST_OFFLOADS: what the driver handles can change while it runs.</summary>
    public const ulong CtrlGuestOffloads = 1UL << 2;

    /// <summary>VIRTIO_NET_F_MTU: the configuration space has the largest MTU.</summary>
    public const ulong Mtu = 1UL << 3;

    /// <summary>VIRTIO_NET_F_MAC: the configuration space has the address.</summary>
    public const ulong Mac = 1UL << 5;

    /// <summary>VIRTIO_NET_F_GUEST_TSO4.</summary>
    public const ulong GuestTso4 = 1UL << 7;

    /// <summary>VIRTIO_NET_F_GUEST_TSO6.</summary>
    public const ulong GuestTso6 = 1UL << 8;

    /// <summary>VIRTIO_NET_F_GUEST_ECN.</summary>
    public const ulong GuestEcn = 1UL << 9;

    /// <summary>VIRTIO_NET_F_HOST_TSO4.</summary>
    public const ulong HostTso4 = 1UL << 11;

    /// <summary>VIRTIO_NET_F_HOST_TSO6.</summary>
    public const ulong HostTso6 = 1UL << 12;

    /// <summary>VIRTIO_NET_F_HOST_ECN.</summary>
    public const ulong HostEcn = 1UL << 13;

    /// <summary>VIRTIO_NET_F_MRG_RXBUF: one packet may fill several receive buffers.</summary>
    public const ulong MergeableBuffers = 1UL << 15;

    /// <summary>VIRTIO_NET_F_STATUS: the configuration space has the link's state.</summary>
    public const ulong Status = 1UL << 16;

    /// <summary>VIRTIO_NET_F_CTRL_VQ: there is a control queue.</summary>
    public const ulong CtrlVq = 1UL << 17;

    /// <summary>VIRTIO_NET_F_CTRL_RX: promiscuous and all-multicast modes, and the filter table.</summary>
    public const ulong CtrlRx = 1UL << 18;

    /// <summary>VIRTIO_NET_F_CTRL_VLAN: the VLAN filter.</summary>
    public const ulong CtrlVlan = 1UL << 19;

    /// <summary>VIRTIO_NET_F_CTRL_RX_EXTRA: the other receive modes.</summary>
    public const ulong CtrlRxExtra = 1UL << 20;

    /// <summary>VIRTIO_NET_F_GUEST_ANNOUNCE: the driver can be asked to announce itself.</summary>
    public const ulong GuestAnnounce = 1UL << 21;

    /// <summary>VIRTIO_NET_F_MQ: several pairs of queues.</summary>
    public const ulong MultiQueue = 1UL << 22;

    /// <summary>VIRTIO_NET_F_CTRL_MAC_ADDR: the driver can set the address.</summary>
    public const ulong CtrlMacAddr = 1UL << 23;

    /// <summary>VIRTIO_NET_F_GUEST_USO4.</summary>
    public const ulong GuestUso4 = 1UL << 54;

    /// <summary>VIRTIO_NET_F_GUEST_USO6.</summary>
    public const ulong GuestUso6 = 1UL << 55;

    /// <summary>VIRTIO_NET_F_HOST_USO.</summary>
    public const ulong HostUso = 1UL << 56;

    /// <summary>UDP segmentation, both ways.</summary>
    public const ulong AllUso = GuestUso4 | GuestUso6 | HostUso;

    /// <summary>TCP segmentation, both ways.</summary>
    public const ulong AllTso = GuestTso4 | GuestTso6 | GuestEcn | HostTso4 | HostTso6 | HostEcn;

    /// <summary>What VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET can change (§5.1.6.5.6.1): its bits are the features'.</summary>
    public const ulong GuestOffloads = GuestCsum | GuestTso4 | GuestTso6 | GuestEcn | GuestUso4 | GuestUso6;

    /// <summary>Those with which a received packet can be longer than the MTU.</summary>
    public const ulong GuestSegmentation = GuestTso4 | GuestTso6 | GuestUso4 | GuestUso6;

    /// <summary>Leaves out of a set of <see cref="GuestOffloads"/> what lacks something that it requires (§5.1.3.1).</summary>
    public static ulong Consistent(ulong offloads)
    {
        offloads &= GuestOffloads;
        if ((offloads & GuestCsum) == 0)
            return 0;
        return (offloads & (GuestTso4 | GuestTso6)) == 0 ? offloads & ~GuestEcn : offloads;
    }
}

/// <summary>The configuration space (§5.1.4), as far as features that are offered need it. Little-endian.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal struct NetConfigurationSpace
{
    public const int Length = 12;

    public uint MacLow;
    public ushort MacHigh;
    public ushort Status;
    public ushort MaxVirtqueuePairs;
    public ushort Mtu;

    /// <summary>VIRTIO_NET_S_LINK_UP.</summary>
    public const ushort LinkUp = 1;

    /// <summary>VIRTIO_NET_S_ANNOUNCE.</summary>
    public const ushort Announce = 2;
}

/// <summary>struct virtio_net_hdr (§5.1.6), which stands before each packet.</summary>
internal static class NetHeader
{
    /// <summary>Bytes, num_buffers included, which a device of version 1 always has.</summary>
    public const int Length = 12;

    public const int FlagsOffset = 0;
    public const int GsoTypeOffset = 1;
    public const int NumBuffersOffset = 10;

    /// <summary>VIRTIO_NET_HDR_F_NEEDS_CSUM.</summary>
    public const byte NeedsCsum = 1;

    /// <summary>VIRTIO_NET_HDR_GSO_TCPV4.</summary>
    public const byte GsoTcp4 = 1;

    /// <summary>VIRTIO_NET_HDR_GSO_TCPV6.</summary>
    public const byte GsoTcp6 = 4;

    /// <summary>VIRTIO_NET_HDR_GSO_UDP_L4.</summary>
    public const byte GsoUdpL4 = 5;

    /// <summary>VIRTIO_NET_HDR_GSO_ECN, beside another type.</summary>
    public const byte GsoEcn = 0x80;

    /// <summary>Whether a driver that handles some <see cref="NetFeatures.GuestOffloads"/> may be given a packet with this header (§5.1.6.4.1).</summary>
    public static bool IsAllowed(byte flags, byte gsoType, ulong offloads)
    {
        if (gsoType == 0 && (flags & NeedsCsum) == 0)
            return true;
        ulong needed = NetFeatures.GuestCsum;
        if ((gsoType & GsoEcn) != 0)
            needed |= NetFeatures.GuestEcn;
        switch (gsoType & ~GsoEcn)
        {
            case 0:
                break;
            case GsoTcp4:
                needed |= NetFeatures.GuestTso4;
                break;
            case GsoTcp6:
                needed |= NetFeatures.GuestTso6;
                break;
            case GsoUdpL4:
                needed |= NetFeatures.GuestUso4 | NetFeatures.GuestUso6;
                break;
            default:
                return false;
        }
        return (offloads & needed) == needed;
    }
}

/// <summary>Sizes of Ethernet frames.</summary>
internal static class Ethernet
{
    /// <summary>Destination, source, type.</summary>
    public const int HeaderLength = 14;

    /// <summary>A header with two VLAN tags.</summary>
    public const int LongestHeader = 22;

    /// <summary>The longest frame that segmentation offload makes: an IP packet of 64 KiB and its header.</summary>
    public const int LongestFrame = 65535 + LongestHeader;
}

/// <summary>Commands of the control queue (§5.1.6.5): the class in the upper byte, the command in the lower.</summary>
internal enum NetCommand : ushort
{
    RxPromisc = 0x0000,
    RxAllMulti = 0x0001,
    RxAllUni = 0x0002,
    RxNoMulti = 0x0003,
    RxNoUni = 0x0004,
    RxNoBroadcast = 0x0005,
    MacTableSet = 0x0100,
    MacAddrSet = 0x0101,
    AnnounceAck = 0x0300,
    MqVqPairsSet = 0x0400,
    GuestOffloadsSet = 0x0500,
}
