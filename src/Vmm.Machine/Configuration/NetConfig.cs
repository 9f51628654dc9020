using System.Net;
using System.Net.Sockets;
using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary><c>--net tap=NAME,…</c>: a virtio network card on a tap interface, or of an external back-end.</summary>
/// <param name="Tap">The interface's name; null for one that the kernel names.</param>
/// <param name="Fds">Open tap descriptors, one for each pair of queues; empty to open the interface.</param>
/// <param name="Ip">The address given to the interface on the host; null to leave it as it is.</param>
/// <param name="Mask">Its netmask; null without an address.</param>
/// <param name="Mac">The guest's hardware address, six bytes as text; null for one made of the machine's random numbers.</param>
/// <param name="HostMac">The hardware address of the interface on the host; null to leave it.</param>
/// <param name="Mtu">Told to the guest and set on the interface: 68 to 65535; null for neither.</param>
/// <param name="NumQueues">Receive and transmit queues together: an even number from 2 to 128.</param>
/// <param name="QueueSize">Descriptors of each queue: a power of two from 4 to 1024.</param>
/// <param name="OffloadCsum">Whether checksums may be left to the other side.</param>
/// <param name="OffloadTso">Whether TCP segments may be larger than the MTU.</param>
/// <param name="OffloadUfo">Whether UDP datagrams may be segmented by the other side (USO).</param>
/// <param name="Limits">Rate limits, of each direction.</param>
/// <param name="BackEnd">The external back-end that serves it; null for none.</param>
/// <param name="Virtio">Name, bus and layout.</param>
public sealed record NetConfig(
    string? Tap, ConfigList<int> Fds, string? Ip, string? Mask, string? Mac, string? HostMac, int? Mtu, int NumQueues, int QueueSize,
    bool OffloadCsum, bool OffloadTso, bool OffloadUfo, RateLimitOptions Limits, BackEndOptions? BackEnd, VirtioOptions Virtio) : IConfigSection
{
    // IFNAMSIZ with its NUL.
    private const int MaxInterfaceName = 15;

    /// <summary>The section in files and the environment: a list.</summary>
    public static readonly SectionSchema Section = new(
        "net",
        ["tap", "fd", "ip", "mask", "mac", "host_mac", "mtu", "num_queues", "queue_size", "offload_csum", "offload_tso", "offload_ufo", .. TokenBucketOptions.Keys, "vhost_user", "vhost_mode", .. BackEndOptions.Keys, .. VirtioOptions.Keys],
        OptionShape.Fields, Repeats: true);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--net",
        "[tap=NAME|fd=[N,…]][,ip=ADDRESS,mask=MASK][,mac=MAC][,host_mac=MAC][,mtu=N][,num_queues=N][,queue_size=N][,offload_csum=on|off][,offload_tso=on|off][,offload_ufo=on|off]" +
        TokenBucketOptions.Syntax + " | vhost_user=on[,vhost_mode=client|server][,mac=MAC][,mtu=N][,num_queues=N][,queue_size=N]" + BackEndOptions.Syntax + VirtioOptions.Syntax,
        "A network card on a tap interface, which is made where there is none of that name, or one that a vhost-user back-end serves (passt). Give it once for each.",
        "net", null, OptionShape.Fields,
        ["tap=", "fd=", "ip=", "mask=", "mac=", "host_mac=", "mtu=", "num_queues=", "queue_size=", "offload_csum=off", "offload_tso=off", "offload_ufo=off", .. TokenBucketOptions.Words, "vhost_user=on", "vhost_mode=server", .. BackEndOptions.Words, .. VirtioOptions.Words]);

    /// <summary>Reads and checks one card.</summary>
    /// <exception cref="VmmException">A value is wrong, or values do not fit together.</exception>
    public static NetConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        if (fields.Flag("vhost_user", false))
            return OfBackEnd(fields);
        BackEndOptions.RefuseWithout(fields);
        string? tap = fields.Text("tap", null);
        if (tap is not null && (tap.Length is 0 or > MaxInterfaceName || tap.AsSpan().IndexOfAny("/ \0\n") >= 0 || tap is "." or ".."))
            throw OptionFields.Error(fields.Find("tap")!, $"{OptionGrammar.Show($"tap={tap}")} is no name of an interface; those have 1 to {MaxInterfaceName} characters.");
        ConfigList<int> fds = Descriptors(fields);
        if (tap is not null && fds.Count != 0)
            throw OptionFields.Error(fields.Find("fd")!, "fd and tap exclude each other; an open descriptor has its interface already.");
        string? ip = Address(fields, "ip");
        string? mask = Address(fields, "mask");
        if ((ip is null) != (mask is null))
            throw VmmException.Configuration($"{fields.Origin}: ip and mask belong together; give both or neither.");
        int queues = QueuesOf(fields, Math.Max(1, fds.Count) * 2);
        if (fds.Count != 0 && queues != fds.Count * 2)
            throw VmmException.Configuration($"{fields.Origin}: {fds.Count} descriptors serve {fds.Count * 2} queues, not num_queues={queues}; leave num_queues out.");
        return new NetConfig(
            tap, fds, ip, mask, MacOf(fields, "mac", guest: true), MacOf(fields, "host_mac", guest: false), fields.Number("mtu", 68, 65535), queues,
            DiskConfig.QueueSizeOf(fields, 256), fields.Flag("offload_csum", true), fields.Flag("offload_tso", true), fields.Flag("offload_ufo", true),
            RateLimitOptions.From(fields), null, VirtioOptions.From(fields));
    }

    void IConfigSection.WriteTo(IConfigWriter writer)
    {
        if (BackEnd is not null)
        {
            writer.Flag("vhost_user", true);
            writer.Text("mac", Mac);
            writer.Number("mtu", Mtu);
            writer.Number("num_queues", NumQueues);
            writer.Number("queue_size", QueueSize);
            BackEnd.WriteTo(writer);
            Virtio.WriteTo(writer);
            return;
        }
        writer.Text("tap", Tap);
        writer.List("fd", [.. Fds.Select(fd => fd.ToString(System.Globalization.CultureInfo.InvariantCulture))]);
        writer.Text("ip", Ip);
        writer.Text("mask", Mask);
        writer.Text("mac", Mac);
        writer.Text("host_mac", HostMac);
        writer.Number("mtu", Mtu);
        writer.Number("num_queues", NumQueues);
        writer.Number("queue_size", QueueSize);
        writer.Flag("offload_csum", OffloadCsum);
        writer.Flag("offload_tso", OffloadTso);
        writer.Flag("offload_ufo", OffloadUfo);
        Limits.WriteTo(writer);
        Virtio.WriteTo(writer);
    }

    private static NetConfig OfBackEnd(OptionFields fields)
    {
        BackEndOptions.Refuse(
            fields, ["tap", "fd", "ip", "mask", "host_mac", "offload_csum", "offload_tso", "offload_ufo", .. TokenBucketOptions.Keys]);
        BackEndOptions backEnd = BackEndOptions.From(fields);
        // The name that Cloud Hypervisor has for it.
        bool server = fields.Word("vhost_mode", backEnd.Server, [("client", false), ("server", true)]);
        return new NetConfig(
            null, ConfigList<int>.Empty, null, null, MacOf(fields, "mac", guest: true), null, fields.Number("mtu", 68, 65535), QueuesOf(fields, 2),
            DiskConfig.QueueSizeOf(fields, 256), true, true, true, RateLimitOptions.From(fields), backEnd with { Server = server }, VirtioOptions.From(fields));
    }

    private static int QueuesOf(OptionFields fields, int otherwise)
    {
        int queues = fields.Number("num_queues", 2, 128) ?? otherwise;
        return queues % 2 == 0 ? queues : throw OptionFields.Error(fields.Find("num_queues")!, $"'num_queues={queues}' is odd; each pair has one to receive and one to send.");
    }

    private static ConfigList<int> Descriptors(OptionFields fields)
    {
        if (fields.Find("fd") is not { } field)
            return ConfigList<int>.Empty;
        var numbers = new List<int>();
        foreach (string item in fields.Items("fd"))
        {
            if (!int.TryParse(item, System.Globalization.NumberStyles.None, null, out int fd) || numbers.Contains(fd))
                throw OptionFields.Error(field, $"{OptionGrammar.Show(item)} is no descriptor, or is there twice; write fd=[3,4] with the numbers of open taps.");
            numbers.Add(fd);
        }
        return new ConfigList<int>([.. numbers]);
    }

    private static string? Address(OptionFields fields, string key)
    {
        string? text = fields.Text(key, null);
        if (text is not null && !(IPAddress.TryParse(text, out IPAddress? address) && address.AddressFamily == AddressFamily.InterNetwork && address.ToString() == text))
            throw OptionFields.Error(fields.Find(key)!, $"{OptionGrammar.Show($"{key}={text}")} is no IPv4 address; write one as 192.168.249.1.");
        return text;
    }

    private static string? MacOf(OptionFields fields, string key, bool guest)
    {
        if (fields.Text(key, null) is not { } text)
            return null;
        string[] parts = text.Split(':');
        if (parts.Length != 6 || parts.Any(part => part.Length != 2 || !part.All(char.IsAsciiHexDigit)))
            throw OptionFields.Error(fields.Find(key)!, $"{OptionGrammar.Show($"{key}={text}")} is no hardware address; write six bytes as 12:34:56:78:9a:bc.");
        if (guest && (Convert.ToByte(parts[0], 16) & 1) != 0)
            throw OptionFields.Error(fields.Find(key)!, $"{OptionGrammar.Show($"{key}={text}")} is a group address, which no card can have; make the first byte even.");
        return text.ToLowerInvariant();
    }
}
