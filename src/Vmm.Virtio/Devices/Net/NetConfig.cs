using System.Buffers;
using System.Net;
using System.Net.Sockets;
using System.Numerics;
using System.Text;
using Vmm.Core;
using Vmm.Virtio.RateLimiting;

namespace Vmm.Virtio.Devices.Net;

/// <summary>A network card's options, under Cloud Hypervisor's names (<c>--net</c>).</summary>
public sealed record NetConfig
{
    /// <summary>The most pairs of queues: the kernel's MAX_TAP_QUEUES.</summary>
    public const int MaximumPairs = 256;

    private static readonly SearchValues<char> s_notInNames = SearchValues.Create(" /:\t\n\0");

    /// <summary><c>id</c>: the name that people give the device.</summary>
    public required string Id { get; init; }

    /// <summary>
    /// <c>tap</c>: the host's interface, made where it does not exist; <c>%d</c> in it becomes a free number. Null: one that is made,
    /// <c>vmtap%d</c>.
    /// </summary>
    public string? Tap { get; init; }

    /// <summary><c>ip</c>: the IPv4 address of the host's interface. Null: not changed.</summary>
    public IPAddress? Ip { get; init; }

    /// <summary><c>mask</c>: its network's mask. Null: 255.255.255.0 with an address, else not changed.</summary>
    public IPAddress? Mask { get; init; }

    /// <summary><c>mac</c>: the guest's address. Null: a random one, the same for all lives of the guest.</summary>
    public MacAddress? Mac { get; init; }

    /// <summary><c>host_mac</c>: the address of the host's interface. Null: not changed.</summary>
    public MacAddress? HostMac { get; init; }

    /// <summary><c>mtu</c>: the largest IP packet, for the host's interface and the guest's. Null: as the host's interface has it.</summary>
    public ushort? Mtu { get; init; }

    /// <summary><c>num_queues</c>: receive and transmit queues together, so an even number.</summary>
    public int NumQueues { get; init; } = 2;

    /// <summary><c>queue_size</c>: descriptors of each.</summary>
    public ushort QueueSize { get; init; } = 256;

    /// <summary><c>fd</c>: open taps instead of <c>tap</c>, one for each pair of queues. The program uses copies of them.</summary>
    public IReadOnlyList<int> Fds { get; init; } = [];

    /// <summary><c>offload_csum</c>: partial checksums, both ways; the other offloads need it.</summary>
    public bool OffloadCsum { get; init; } = true;

    /// <summary><c>offload_tso</c>: TCP segmentation, both ways.</summary>
    public bool OffloadTso { get; init; } = true;

    /// <summary><c>offload_ufo</c>: UDP segmentation (USO; the old UFO, which fragments, is not offered), both ways.</summary>
    public bool OffloadUfo { get; init; } = true;

    /// <summary>
    /// <c>bw_size</c>, <c>bw_one_time_burst</c>, <c>bw_refill_time</c>, <c>ops_size</c>, <c>ops_one_time_burst</c>,
    /// <c>ops_refill_time</c>: the rate limit, of each direction by itself; operations are frames.
    /// </summary>
    public RateLimiterConfig RateLimit { get; init; }

    /// <summary>Pairs of a receive and a transmit queue.</summary>
    public int Pairs => NumQueues / 2;

    /// <summary>Checks that the options make sense by themselves and together.</summary>
    /// <exception cref="VmmException">One does not.</exception>
    public void Validate()
    {
        if (NumQueues < 2 || NumQueues % 2 != 0 || Pairs > MaximumPairs)
            throw Wrong($"num_queues={NumQueues} is not possible: receive and transmit queues come in pairs, so give an even number from 2 to {2 * MaximumPairs}.");
        if (QueueSize < 2 || QueueSize > 32768 || !BitOperations.IsPow2(QueueSize))
            throw Wrong($"queue_size={QueueSize} is not possible: give a power of two from 2 to 32768.");
        if (Tap != null && (Tap.Length == 0 || Encoding.UTF8.GetByteCount(Tap) > 15 || Tap.AsSpan().ContainsAny(s_notInNames) || Tap is "." or ".."))
            throw Wrong($"tap={Tap} is not possible: the name of an interface has 1 to 15 bytes, without spaces, slashes and colons.");
        CheckAddress("ip", Ip);
        CheckAddress("mask", Mask);
        if (Mask != null && Ip == null)
            throw Wrong("mask= says nothing without ip=: give both or neither.");
        if (Mac is { } mac && (mac.IsMulticast || mac.Value == 0))
            throw Wrong($"mac={mac} is not possible: that is not the address of one station; give one whose first byte is even, such as 52:54:00:12:34:56.");
        if (HostMac is { } host && (host.IsMulticast || host.Value == 0))
            throw Wrong($"host_mac={host} is not possible: that is not the address of one station; give one whose first byte is even.");
        if (Mtu < 68)
            throw Wrong($"mtu={Mtu} is not possible: IPv4 needs at least 68 bytes (and IPv6 1280).");
        RateLimit.Validate();
        if (Fds.Count == 0)
            return;
        if (Tap != null || Ip != null || HostMac != null)
            throw Wrong("fd= does not go together with tap=, ip=, mask= and host_mac=: whoever opened the descriptors has set their interface up.");
        if (Fds.Count != Pairs)
            throw Wrong($"fd= has {Fds.Count} descriptors for {Pairs} pairs of queues: give one for each pair, and num_queues={Fds.Count * 2}.");
        foreach (int fd in Fds)
        {
            if (fd <= 2)
                throw Wrong($"fd={fd} is not possible: descriptors up to 2 are this program's standard streams.");
        }
    }

    private void CheckAddress(string option, IPAddress? address)
    {
        if (address is { AddressFamily: not AddressFamily.InterNetwork })
            throw Wrong($"{option}={address} is not possible: only IPv4 addresses can be set; set others with ip(8), and name the interface with tap=.");
    }

    private VmmException Wrong(string problem) => VmmException.Configuration($"Network card {Id}: {problem}");
}
