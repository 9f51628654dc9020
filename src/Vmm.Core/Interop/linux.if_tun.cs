namespace Vmm.Core.Interop;

internal static partial class LibC
{
    internal const uint TUNSETIFF = 0x400454CA;
    internal const uint TUNGETFEATURES = 0x800454CF;
    internal const uint TUNSETOFFLOAD = 0x400454D0;
    internal const uint TUNGETIFF = 0x800454D2;
    internal const uint TUNSETVNETHDRSZ = 0x400454D8;
    internal const uint TUNSETQUEUE = 0x400454D9;
    internal const uint TUNSETCARRIER = 0x400454E2;

    internal const ushort IFF_TUN = 0x0001;
    internal const ushort IFF_TAP = 0x0002;
    internal const ushort IFF_MULTI_QUEUE = 0x0100;
    internal const ushort IFF_ATTACH_QUEUE = 0x0200;
    internal const ushort IFF_DETACH_QUEUE = 0x0400;
    internal const ushort IFF_NO_PI = 0x1000;
    internal const ushort IFF_VNET_HDR = 0x4000;

    internal const uint TUN_F_CSUM = 0x01;
    internal const uint TUN_F_TSO4 = 0x02;
    internal const uint TUN_F_TSO6 = 0x04;
    internal const uint TUN_F_TSO_ECN = 0x08;
    internal const uint TUN_F_USO4 = 0x20;
    internal const uint TUN_F_USO6 = 0x40;
}
