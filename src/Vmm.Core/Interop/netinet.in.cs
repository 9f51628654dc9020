namespace Vmm.Core.Interop;

/// <summary>struct sockaddr_in of netinet/in.h: 16 bytes. Port and address are in network byte order.</summary>
internal struct sockaddr_in
{
    internal ushort sin_family;
    internal ushort sin_port;
    internal uint sin_addr;
    internal ulong sin_zero;
}
