using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

/// <summary>The name of an <see cref="ifreq"/>, with a zero byte at its end.</summary>
[InlineArray(LibC.IFNAMSIZ)]
internal struct ifreq_name
{
    private byte _element0;
}

/// <summary>struct ifreq of net/if.h: 40 bytes, of which those after the name are a union.</summary>
[StructLayout(LayoutKind.Explicit, Size = 40)]
internal struct ifreq
{
    [FieldOffset(0)]
    internal ifreq_name ifr_name;

    [FieldOffset(16)]
    internal short ifr_flags;

    [FieldOffset(16)]
    internal int ifr_mtu;

    [FieldOffset(16)]
    internal sockaddr_in ifr_addr;

    [FieldOffset(16)]
    internal sockaddr_in ifr_netmask;

    [FieldOffset(16)]
    internal sockaddr ifr_hwaddr;
}

internal static partial class LibC
{
    internal const int IFNAMSIZ = 16;
    internal const short IFF_UP = 1;
}
