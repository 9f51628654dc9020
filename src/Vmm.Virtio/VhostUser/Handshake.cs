using Vmm.Core.Sockets;
using Vmm.Virtio.VhostUser.Protocol;

namespace Vmm.Virtio.VhostUser;

/// <summary>Begins a connection: finds out what the back-end can do, and says what of it is used (vhost-user, "Communication").</summary>
internal static class Handshake
{
    private const ulong PageMask = 4095;

    /// <summary>Negotiates; <see cref="MainChannel.ProtocolFeatures"/> are set afterwards.</summary>
    /// <param name="channel">A new connection.</param>
    /// <param name="settings">What is wanted.</param>
    /// <param name="allowed">
    /// Protocol features that may be accepted at most: those of the first back-end where this one takes its place. With more, what the guest
    /// and this side have come to rely on would change.
    /// </param>
    /// <param name="requests">Does what the back-end asks for.</param>
    /// <param name="opened">The back-end's channel, also where this fails; null where there is none.</param>
    /// <exception cref="BackEndException">The back-end breaks the protocol, or cannot be that device.</exception>
    internal static BackEndOffer Negotiate(MainChannel channel, VhostUserSettings settings, ulong allowed, IBackEndRequests requests, out BackEndChannel? opened)
    {
        opened = null;
        using MainChannel.Operation connecting = channel.Begin("begin the connection", settings.FirstAnswer + settings.Timeouts.Operation);
        ulong features = channel.Ask<ulong>(FrontEndRequest.GetFeatures, default, settings.FirstAnswer);
        ulong accepted = 0;
        if ((features & VhostUserFeatures.ProtocolFeatures) != 0)
        {
            accepted = Accept(channel.Ask<ulong>(FrontEndRequest.GetProtocolFeatures) & allowed, settings);
            // Before it, nothing is acknowledged; nor is this one, as a rule of the protocol.
            channel.Send(FrontEndRequest.SetProtocolFeatures, accepted, acknowledged: false);
            channel.ProtocolFeatures = accepted;
        }
        channel.Send(FrontEndRequest.SetOwner, default(ReadOnlySpan<byte>), acknowledged: false);
        int queues = Has(ProtocolFeatures.MultiQueue) ? Queues(channel.Ask<ulong>(FrontEndRequest.GetQueueNum), settings) : int.MaxValue;
        int slots = Has(ProtocolFeatures.ConfigureMemSlots) ? Slots(channel.Ask<ulong>(FrontEndRequest.GetMaxMemSlots)) : MemoryTableHead.MaximumRegions;
        opened = OpenRequests(channel, settings, requests);
        if (settings.Mtu is { } mtu && Has(ProtocolFeatures.NetMtu))
            channel.Send(FrontEndRequest.NetSetMtu, (ulong)mtu);
        IReadOnlyDictionary<byte, ulong> sharedMemory = Has(SharedMemoryBit(settings)) ? SharedMemory(channel, settings) : new Dictionary<byte, ulong>();
        byte[] configuration = Has(ProtocolFeatures.Config) ? ReadConfiguration(channel, settings) : [];
        return new BackEndOffer(features, accepted, queues, slots, sharedMemory, configuration);

        bool Has(ulong feature) => (accepted & feature) != 0;
    }

    /// <summary>Gives the back-end its channel for requests, where that was negotiated; null where not.</summary>
    private static BackEndChannel? OpenRequests(MainChannel channel, VhostUserSettings settings, IBackEndRequests requests)
    {
        if ((channel.ProtocolFeatures & ProtocolFeatures.BackEndRequests) == 0)
            return null;
        (UnixStream ours, UnixStream theirs) = UnixStream.CreatePair();
        using (theirs)
        {
            // To the requests themselves the bit makes no difference.
            ulong features = channel.ProtocolFeatures;
            if (settings.SharedMemoryIsBit21 && (features & ProtocolFeatures.GuestAddresses) != 0)
                features |= ProtocolFeatures.SharedMemory;
            // Serving before the other end is away: it may be used before the acknowledgement is here.
            var channelOfBackEnd = new BackEndChannel(settings.Id, ours, features, requests, settings.Timeouts.BackEndReply);
            try
            {
                channel.Send(FrontEndRequest.SetBackEndRequestFd, default, [theirs.Number]);
                return channelOfBackEnd;
            }
            catch
            {
                channelOfBackEnd.Dispose();
                throw;
            }
        }
    }

    /// <summary>Reads the configuration space, as much as the device has.</summary>
    internal static byte[] ReadConfiguration(MainChannel channel, VhostUserSettings settings)
    {
        byte[] configuration = new byte[settings.ConfigurationLength];
        if (configuration.Length > 0)
            channel.ReadConfiguration(0, configuration);
        foreach ((int offset, byte[] bytes) in settings.ConfigurationOverlay)
            bytes.CopyTo(configuration.AsSpan(offset));
        return configuration;
    }

    private static ulong SharedMemoryBit(VhostUserSettings settings) =>
        settings.SharedMemoryIsBit21 ? ProtocolFeatures.GuestAddresses : ProtocolFeatures.SharedMemory;

    private static ulong Accept(ulong offered, VhostUserSettings settings)
    {
        ulong wanted = settings.WantedProtocolFeatures;
        if (settings.SharedMemoryIsBit21)
            wanted = (wanted & ~ProtocolFeatures.SharedMemory) | ProtocolFeatures.GuestAddresses;
        if (settings.ConfigurationLength == 0)
            wanted &= ~ProtocolFeatures.Config;
        ulong accepted = offered & wanted;
        // These are about requests that come by a channel which is not there.
        if ((accepted & ProtocolFeatures.BackEndRequests) == 0)
            accepted &= ~(ProtocolFeatures.BackEndSendFd | SharedMemoryBit(settings));
        return accepted;
    }

    private static int Queues(ulong answer, VhostUserSettings settings)
    {
        // The back-ends of network cards count pairs.
        ulong each = settings.Type == VirtioDeviceType.Network ? 2UL : 1;
        if (answer is 0 or > ushort.MaxValue)
            throw BackEndException.Broken($"it says that it has {answer} queues");
        return (int)(answer * each);
    }

    private static int Slots(ulong answer) =>
        answer == 0 ? throw BackEndException.Broken("it says that it has no room for memory") : (int)Math.Min(answer, 512);

    private static Dictionary<byte, ulong> SharedMemory(MainChannel channel, VhostUserSettings settings)
    {
        SharedMemoryConfiguration told = channel.Ask<SharedMemoryConfiguration>(FrontEndRequest.GetShmemConfig);
        var regions = new Dictionary<byte, ulong>();
        ulong sum = 0;
        ReadOnlySpan<ulong> sizes = told.Sizes;
        for (int id = 0; id < sizes.Length; id++)
        {
            if (sizes[id] == 0)
                continue;
            if ((sizes[id] & PageMask) != 0)
                throw BackEndException.Broken($"its shared memory region {id} has {sizes[id]} bytes, which are not whole pages");
            if (sizes[id] > settings.SharedMemoryLimit - sum)
                throw BackEndException.Broken($"its shared memory regions have more than {settings.SharedMemoryLimit} bytes together, which are allowed");
            sum += sizes[id];
            regions.Add((byte)id, sizes[id]);
        }
        // A count that goes up to the last id is as good as one of those that are there; one that leaves some out is not.
        if (told.Count < (uint)regions.Count || told.Count > (uint)sizes.Length)
            throw BackEndException.Broken($"it says that it has {told.Count} shared memory regions, and gives the sizes of {regions.Count}");
        return regions;
    }
}
