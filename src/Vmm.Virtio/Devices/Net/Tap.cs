using System.Net;
using Vmm.Core;
using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Devices.Net;

/// <summary>
/// A tap: an interface of the host whose cable ends in this program. Opened once by the machine, for all lives of the guest; an interface
/// that it made is gone when it is closed.
/// </summary>
public sealed unsafe class Tap : INetBackend
{
    private const ulong TsoOffloads = NetFeatures.AllTso | NetFeatures.Csum | NetFeatures.GuestCsum;
    private const ulong Uso = NetFeatures.GuestUso4 | NetFeatures.GuestUso6;

    private readonly TapPort[] _ports;
    private volatile bool _carrier = true;

    private Tap(string name, TapPort[] ports, ushort mtu)
    {
        Name = name;
        _ports = ports;
        Mtu = mtu;
    }

    /// <summary>The interface's name.</summary>
    public string Name { get; }

    /// <inheritdoc/>
    public IReadOnlyList<INetPort> Ports => _ports;

    /// <inheritdoc/>
    public ulong Offloads { get; private set; }

    /// <inheritdoc/>
    public ushort Mtu { get; }

    /// <inheritdoc/>
    public MacAddress DefaultMac { get; } = MacAddress.Random();

    /// <summary>Makes or takes the tap that the options say, sets it up and brings it up.</summary>
    /// <exception cref="VmmException">The options contradict each other, or the host refuses.</exception>
    public static Tap Open(NetConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        config.Validate();
        var ports = new TapPort[config.Pairs];
        try
        {
            string name = config.Fds.Count > 0 ? Take(config, ports) : OpenByName(config, ports);
            ushort mtu = SetUp(config, name);
            var tap = new Tap(name, ports, mtu);
            tap.Prepare();
            return tap;
        }
        catch
        {
            foreach (TapPort? port in ports)
                port?.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public bool TrySetGuestOffloads(ulong offloads)
    {
        uint flags = 0;
        if ((offloads & NetFeatures.GuestCsum) != 0)
            flags |= TUN_F_CSUM;
        if ((offloads & NetFeatures.GuestTso4) != 0)
            flags |= TUN_F_TSO4;
        if ((offloads & NetFeatures.GuestTso6) != 0)
            flags |= TUN_F_TSO6;
        if ((offloads & NetFeatures.GuestEcn) != 0)
            flags |= TUN_F_TSO_ECN;
        // The kernel knows only both or none.
        if ((offloads & Uso) == Uso)
            flags |= TUN_F_USO4 | TUN_F_USO6;
        return ioctl(_ports[0].Descriptor, TUNSETOFFLOAD, (nuint)flags) == 0;
    }

    /// <inheritdoc/>
    public bool Carrier
    {
        get => _carrier;
        set
        {
            _carrier = value;
            int carrier = value ? 1 : 0;
            // Kernels before 5.0 refuse: there the cable looks plugged in, and frames are dropped by the device.
            _ = ioctl(_ports[0].Descriptor, TUNSETCARRIER, &carrier);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (TapPort port in _ports)
            port.Dispose();
    }

    private static string OpenByName(NetConfig config, TapPort[] ports)
    {
        string name = config.Tap ?? "vmtap%d";
        for (int i = 0; i < ports.Length; i++)
        {
            int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC, 0);
            if (fd < 0)
                throw CannotOpen(config, errno);
            var descriptor = new FileDescriptor(fd);
            bool many = ports.Length > 1;
            int error = Attach(fd, many, ref name);
            // An interface that exists says how many queues it wants.
            if (error == EINVAL && !many)
                error = Attach(fd, many = true, ref name);
            if (error != 0)
            {
                descriptor.Dispose();
                throw CannotAttach(config, name, error);
            }
            ports[i] = new TapPort(descriptor, many);
        }
        return name;
    }

    private static int Attach(int fd, bool many, ref string name)
    {
        ifreq request = TapInterface.Request(name);
        request.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (many ? IFF_MULTI_QUEUE : 0));
        if (ioctl(fd, TUNSETIFF, &request) < 0)
            return errno;
        name = TapInterface.NameOf(request);
        return 0;
    }

    private static string Take(NetConfig config, TapPort[] ports)
    {
        string? name = null;
        for (int i = 0; i < ports.Length; i++)
        {
            int given = config.Fds[i];
            int fd = fcntl(given, F_DUPFD_CLOEXEC, 3);
            if (fd < 0)
                throw VmmException.Configuration($"Network card {config.Id}: fd={given} is not an open descriptor of this process ({strerror(errno)}); pass it on when you start the program.");
            var descriptor = new FileDescriptor(fd);
            try
            {
                ifreq request = default;
                if (ioctl(fd, TUNGETIFF, &request) < 0)
                    throw Unfit(config, given, "it is not an open tap: open /dev/net/tun and attach it with TUNSETIFF first");
                var flags = (ushort)request.ifr_flags;
                if ((flags & IFF_TAP) == 0)
                    throw Unfit(config, given, "it is a tun interface, which carries IP packets; make it with IFF_TAP, which carries Ethernet frames");
                if ((flags & IFF_NO_PI) == 0 || (flags & IFF_VNET_HDR) == 0)
                    throw Unfit(config, given, "it was made without IFF_NO_PI or IFF_VNET_HDR; set both");
                if (ports.Length > 1 && (flags & IFF_MULTI_QUEUE) == 0)
                    throw Unfit(config, given, "it has one queue only; make it with IFF_MULTI_QUEUE, or give one descriptor");
                string its = TapInterface.NameOf(request);
                if (name != null && name != its)
                    throw Unfit(config, given, $"it belongs to the interface {its}, and those before it to {name}; give queues of one interface");
                name = its;
                long status = fcntl(fd, F_GETFL, 0);
                if (status < 0 || fcntl(fd, F_SETFL, status | O_NONBLOCK) < 0)
                    throw Unfit(config, given, $"it cannot be made non-blocking: {strerror(errno)} (errno {errno})");
                ports[i] = new TapPort(descriptor, (flags & IFF_MULTI_QUEUE) != 0);
            }
            catch
            {
                descriptor.Dispose();
                throw;
            }
        }
        return name!;
    }

    /// <summary>Sets the host's interface up; gives its MTU.</summary>
    private static ushort SetUp(NetConfig config, string name)
    {
        using var host = new TapInterface(name);
        if (config.Fds.Count > 0)
            return config.Mtu ?? Clamp(host.Mtu);
        if (config.HostMac is { } mac)
            host.SetMac(mac);
        if (config.Ip != null)
            host.SetAddress(config.Ip, config.Mask ?? new IPAddress([255, 255, 255, 0]));
        if (config.Mtu is { } mtu)
            host.SetMtu(mtu);
        host.SetUp();
        return config.Mtu ?? Clamp(host.Mtu);
    }

    private static ushort Clamp(int? mtu) => (ushort)Math.Clamp(mtu ?? 1500, 68, 65535);

    /// <summary>The header's size, and what the kernel can do. Begins as for a guest that handles nothing.</summary>
    private void Prepare()
    {
        foreach (TapPort port in _ports)
        {
            int length = NetHeader.Length;
            if (ioctl(port.Descriptor, TUNSETVNETHDRSZ, &length) < 0)
                throw VmmException.Host($"Cannot set the header size of the tap {Name}: {strerror(errno)} (errno {errno}).");
        }
        ulong both = NetFeatures.Consistent(NetFeatures.GuestOffloads);
        if (TrySetGuestOffloads(both))
            Offloads = TsoOffloads | NetFeatures.AllUso;
        else if (TrySetGuestOffloads(both & ~Uso))
            Offloads = TsoOffloads;
        if (!TrySetGuestOffloads(0))
            throw VmmException.Host($"Cannot set the offloads of the tap {Name}: {strerror(errno)} (errno {errno}).");
    }

    private static VmmException CannotOpen(NetConfig config, int error)
    {
        string advice = error switch
        {
            ENOENT or ENODEV => "The kernel's module tun is not there: load it (modprobe tun), and in a container pass the device in",
            EACCES or EPERM => "Let this user open it (the group of /dev/net/tun), or pass an open tap with fd=",
            EMFILE => "Raise the limit on open files (ulimit -n)",
            _ => "Check the device",
        };
        return VmmException.Host($"Cannot open /dev/net/tun for the network card {config.Id}: {strerror(error)} (errno {error}). {advice}.");
    }

    private static VmmException CannotAttach(NetConfig config, string name, int error)
    {
        string advice = error switch
        {
            EPERM or EACCES => "Making one needs the capability CAP_NET_ADMIN; or make it beforehand for this user (ip tuntap add mode tap user NAME), or pass an open one with fd=",
            EBUSY => "Another program has it open: give each machine a tap of its own",
            EINVAL when config.Pairs > 1 => "Either there is an interface of that name that is no tap, or a tap with one queue: make it with multi_queue, or give num_queues=2",
            EINVAL => "There is an interface of that name that is no tap: choose another name",
            E2BIG => "It has no queue left: give a smaller num_queues",
            _ => "Check the name with ip(8)",
        };
        return VmmException.Host($"Cannot open the tap {name} for the network card {config.Id}: {strerror(error)} (errno {error}). {advice}.");
    }

    private static VmmException Unfit(NetConfig config, int fd, string problem) =>
        VmmException.Configuration($"Network card {config.Id}: fd={fd} cannot be used: {problem}.");
}
