using System.Buffers.Binary;
using System.Net;
using System.Runtime.InteropServices;
using System.Text;
using Vmm.Core;
using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Devices.Net;

/// <summary>The host's side of a tap: what netdevice(7) sets and tells of an interface.</summary>
internal sealed unsafe class TapInterface : IDisposable
{
    private readonly FileDescriptor _socket;
    private readonly string _name;

    /// <summary>Takes the interface of a name, in the network namespace of this process.</summary>
    public TapInterface(string name)
    {
        _name = name;
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            throw VmmException.Host($"Cannot make a socket to set up the interface {name}: {strerror(errno)} (errno {errno}).");
        _socket = new FileDescriptor(fd);
    }

    /// <summary>A request about an interface.</summary>
    public static ifreq Request(string name)
    {
        ifreq request = default;
        Encoding.UTF8.GetBytes(name, ((Span<byte>)request.ifr_name)[..(IFNAMSIZ - 1)]);
        return request;
    }

    /// <summary>The name that the kernel has put into a request.</summary>
    public static string NameOf(in ifreq request)
    {
        ReadOnlySpan<byte> name = MemoryMarshal.CreateReadOnlySpan(in request.ifr_name[0], IFNAMSIZ);
        int end = name.IndexOf((byte)0);
        return Encoding.UTF8.GetString(end < 0 ? name : name[..end]);
    }

    /// <summary>The MTU; null where it cannot be told, such as for an interface of another namespace.</summary>
    public int? Mtu
    {
        get
        {
            ifreq request = Request(_name);
            return ioctl(_socket.Number, SIOCGIFMTU, &request) < 0 ? null : request.ifr_mtu;
        }
    }

    /// <summary>Sets the MTU, in bytes.</summary>
    public void SetMtu(int mtu)
    {
        // A user that may open the interface need not be one that may change it.
        if (Mtu == mtu)
            return;
        ifreq request = Request(_name);
        request.ifr_mtu = mtu;
        Set(SIOCSIFMTU, request, $"set the MTU of the interface {_name} to {mtu}");
    }

    /// <summary>Sets the interface's own Ethernet address.</summary>
    public void SetMac(MacAddress mac)
    {
        ifreq request = Request(_name);
        if (ioctl(_socket.Number, SIOCGIFHWADDR, &request) < 0)
            throw Refused($"read the address of the interface {_name}");
        Span<byte> address = request.ifr_hwaddr.sa_data;
        if (MacAddress.From(address) == mac)
            return;
        mac.CopyTo(address);
        Set(SIOCSIFHWADDR, request, $"set the address of the interface {_name} to {mac}");
    }

    /// <summary>Gives the interface an IPv4 address and the mask of its network.</summary>
    public void SetAddress(IPAddress address, IPAddress mask)
    {
        ifreq request = Request(_name);
        request.ifr_addr = Socket(address);
        Set(SIOCSIFADDR, request, $"set the IP address of the interface {_name} to {address}");
        request = Request(_name);
        request.ifr_netmask = Socket(mask);
        Set(SIOCSIFNETMASK, request, $"set the network mask of the interface {_name} to {mask}");
    }

    /// <summary>Brings the interface up.</summary>
    public void SetUp()
    {
        ifreq request = Request(_name);
        if (ioctl(_socket.Number, SIOCGIFFLAGS, &request) < 0)
            throw Refused($"read the state of the interface {_name}");
        if ((request.ifr_flags & IFF_UP) != 0)
            return;
        request.ifr_flags |= IFF_UP;
        Set(SIOCSIFFLAGS, request, $"bring the interface {_name} up");
    }

    /// <inheritdoc/>
    public void Dispose() => _socket.Dispose();

    private static sockaddr_in Socket(IPAddress address)
    {
        Span<byte> bytes = stackalloc byte[4];
        address.TryWriteBytes(bytes, out _);
        return new sockaddr_in { sin_family = AF_INET, sin_addr = BinaryPrimitives.ReadUInt32LittleEndian(bytes) };
    }

    // Safe: the request is a local, and as large as the kernel's.
    private void Set(uint code, ifreq request, string what)
    {
        if (ioctl(_socket.Number, code, &request) < 0)
            throw Refused(what);
    }

    private static VmmException Refused(string what)
    {
        int error = errno;
        string advice = error is EPERM or EACCES ? " It needs the capability CAP_NET_ADMIN; or set the interface up beforehand with ip(8)." : "";
        return VmmException.Host($"Cannot {what}: {strerror(error)} (errno {error}).{advice}");
    }
}
