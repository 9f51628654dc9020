using Vmm.Core;

namespace Vmm.Virtio.VhostUser;

/// <summary>Where the back-end of a device is, and what of the device is decided on this side.</summary>
public sealed record VhostUserSettings
{
    /// <summary>The device's name.</summary>
    public required string Id { get; init; }

    /// <summary>The socket's path.</summary>
    public required string Socket { get; init; }

    /// <summary>What a driver finds the device by.</summary>
    public required VirtioDeviceType Type { get; init; }

    /// <summary>The largest size of each queue: powers of two from 2 to 32768.</summary>
    public required IReadOnlyList<ushort> QueueSizes { get; init; }

    /// <summary>We listen and the back-end connects; else it is the other way round.</summary>
    public bool Server { get; init; }

    /// <summary>
    /// Somebody starts the back-end together with us, and its socket may be there before it listens: it is waited for longer.
    /// </summary>
    public bool IsBeingStarted { get; init; }

    /// <summary>
    /// How long to wait between two tries to connect to a back-end that went away, in milliseconds; null where the device is to stay broken
    /// then. As a server, any back-end that comes is taken at once.
    /// </summary>
    public int? Reconnect { get; init; } = 100;

    /// <summary>Bytes of the configuration space that the back-end has; 0 where it is asked for none.</summary>
    public int ConfigurationLength { get; init; }

    /// <summary>
    /// The configuration space, where this side knows it better than the back-end, or the back-end has none; null for the back-end's.
    /// </summary>
    public byte[]? Configuration { get; init; }

    /// <summary>What stands in the back-end's configuration space on this side's word, as the number of queues: offsets and bytes.</summary>
    public IReadOnlyList<(int Offset, byte[] Bytes)> ConfigurationOverlay { get; init; } = [];

    /// <summary>Features that this side adds, and that the back-end need not know.</summary>
    public ulong OwnFeatures { get; init; }

    /// <summary>Features that the back-end may offer, and that are not offered to a guest.</summary>
    public ulong RefusedFeatures { get; init; }

    /// <summary>The MTU that the back-end is told (NET_SET_MTU), where it can be; null for none.</summary>
    public ushort? Mtu { get; init; }

    /// <summary>
    /// A network card whose queues are pairs, and which has a control queue behind them that this side serves (VIRTIO_NET_F_CTRL_VQ). It needs
    /// a <see cref="Configuration"/>.
    /// </summary>
    public bool HasControlQueue { get; init; }

    /// <summary>The display of a graphics card; null for none.</summary>
    public Gpu.DisplaySettings? Display { get; init; }

    /// <summary>The back-end means shared memory by protocol feature bit 21, as some of 2025 did. Never guessed.</summary>
    public bool SharedMemoryIsBit21 { get; init; }

    /// <summary>The most bytes that the shared memory regions may have together.</summary>
    public ulong SharedMemoryLimit { get; init; } = 64UL << 30;

    /// <summary>Deadlines.</summary>
    internal VhostUserTimeouts Timeouts { get; init; } = new();

    /// <summary>How long the first answer of a connection may take. Milliseconds.</summary>
    internal int FirstAnswer => IsBeingStarted ? Timeouts.Start : Timeouts.Request;

    /// <summary>What may be accepted of the protocol.</summary>
    internal ulong WantedProtocolFeatures => Protocol.ProtocolFeatures.Implemented | (Type == VirtioDeviceType.Network ? Protocol.ProtocolFeatures.Network : 0);

    /// <summary>Refuses what can be no device.</summary>
    /// <exception cref="VmmException">It cannot.</exception>
    public void Validate()
    {
        if (QueueSizes.Count is 0 or > MostQueues)
            throw VmmException.Configuration($"{Id}: a vhost-user device has 1 to {MostQueues} queues, not {QueueSizes.Count}.");
        foreach (ushort size in QueueSizes)
        {
            if (size < 2 || size > 32768 || !System.Numerics.BitOperations.IsPow2(size))
                throw VmmException.Configuration($"{Id}: a queue cannot have {size} descriptors; use a power of two from 2 to 32768.");
        }
        if (ConfigurationLength is < 0 or > Protocol.ConfigHead.MaximumData)
            throw VmmException.Configuration($"{Id}: a configuration space of {ConfigurationLength} bytes does not fit a message; use 0 to {Protocol.ConfigHead.MaximumData}.");
    }

    // The protocol has eight bits for the number of a queue where it sends descriptors (SET_VRING_KICK).
    private const int MostQueues = 256;
}
