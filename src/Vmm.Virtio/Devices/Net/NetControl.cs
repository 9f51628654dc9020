using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Devices.Net;

/// <summary>What a command may change that is not the control queue's alone.</summary>
internal interface INetControlled
{
    /// <summary>Uses this many pairs of queues, 1 to all.</summary>
    bool TrySetPairs(int pairs);

    /// <summary>Changes what the driver handles: a consistent subset of what it accepted.</summary>
    bool TrySetOffloads(ulong offloads);
}

/// <summary>
/// The commands of the control queue (VIRTIO 1.3 §5.1.6.5). A command that is cut short, unknown, not negotiated or impossible is
/// answered with VIRTIO_NET_ERR and changes nothing.
/// </summary>
internal sealed class NetControl(NetSettings settings, INetControlled card, int pairs)
{
    /// <summary>VIRTIO_NET_OK.</summary>
    public const byte Ok = 0;

    /// <summary>VIRTIO_NET_ERR.</summary>
    public const byte Error = 1;

    private const int CommandsPerTurn = 16;
    private const int HeaderLength = 2;

    private long _commands, _errors;

    /// <summary>Commands obeyed.</summary>
    public long Commands => Volatile.Read(ref _commands);

    /// <summary>Commands answered with an error.</summary>
    public long Errors => Volatile.Read(ref _errors);

    /// <summary>Obeys a bounded number of commands; true when there may be more.</summary>
    public bool Serve(VirtQueue queue, ulong features)
    {
        int done = 0;
        while (done < CommandsPerTurn && queue.TryTake(out DescriptorChain? chain))
        {
            byte answer = Execute(chain, features) ? Ok : Error;
            if (answer == Ok)
                Volatile.Write(ref _commands, _commands + 1);
            else
                Volatile.Write(ref _errors, _errors + 1);
            queue.GiveBack(chain, chain.TryWrite(0, answer) ? 1u : 0u);
            done++;
        }
        queue.Flush();
        return done == CommandsPerTurn;
    }

    /// <summary>Obeys one command; false when it cannot be.</summary>
    public bool Execute(DescriptorChain chain, ulong features)
    {
        Span<byte> header = stackalloc byte[HeaderLength];
        // Without room for the answer nothing is done that the driver would not hear of.
        if (chain.Read(0, header) < HeaderLength || chain.WritableLength == 0)
            return false;
        var command = (NetCommand)((header[0] << 8) | header[1]);
        return (features & NeededFor(command)) == NeededFor(command) && command switch
        {
            NetCommand.RxPromisc => TrySetMode(chain, NetReceiveModes.Promiscuous),
            NetCommand.RxAllMulti => TrySetMode(chain, NetReceiveModes.AllMulticast),
            NetCommand.RxAllUni => TrySetMode(chain, NetReceiveModes.AllUnicast),
            NetCommand.RxNoMulti => TrySetMode(chain, NetReceiveModes.NoMulticast),
            NetCommand.RxNoUni => TrySetMode(chain, NetReceiveModes.NoUnicast),
            NetCommand.RxNoBroadcast => TrySetMode(chain, NetReceiveModes.NoBroadcast),
            NetCommand.MacTableSet => TrySetTable(chain),
            NetCommand.MacAddrSet => TrySetAddress(chain),
            NetCommand.AnnounceAck => TryAcknowledge(),
            NetCommand.MqVqPairsSet => chain.TryRead(HeaderLength, out ushort count) && count >= 1 && count <= pairs && card.TrySetPairs(count),
            NetCommand.GuestOffloadsSet => TrySetOffloads(chain, features),
            _ => false,
        };
    }

    private static ulong NeededFor(NetCommand command) => NetFeatures.CtrlVq | command switch
    {
        NetCommand.RxPromisc or NetCommand.RxAllMulti or NetCommand.MacTableSet => NetFeatures.CtrlRx,
        NetCommand.RxAllUni or NetCommand.RxNoMulti or NetCommand.RxNoUni or NetCommand.RxNoBroadcast => NetFeatures.CtrlRxExtra,
        NetCommand.MacAddrSet => NetFeatures.CtrlMacAddr,
        NetCommand.AnnounceAck => NetFeatures.GuestAnnounce,
        NetCommand.MqVqPairsSet => NetFeatures.MultiQueue,
        NetCommand.GuestOffloadsSet => NetFeatures.CtrlGuestOffloads,
        _ => 0,
    };

    private bool TrySetMode(DescriptorChain chain, NetReceiveModes mode)
    {
        if (!chain.TryRead(HeaderLength, out byte on))
            return false;
        settings.Filter = settings.Filter.With(mode, on != 0);
        return true;
    }

    private bool TrySetAddress(DescriptorChain chain)
    {
        Span<byte> bytes = stackalloc byte[MacAddress.Length];
        if (chain.Read(HeaderLength, bytes) < bytes.Length)
            return false;
        MacAddress address = MacAddress.From(bytes);
        if (address.IsMulticast)
            return false;
        settings.Filter = settings.Filter.With(address);
        return true;
    }

    /// <summary>Two tables, each a count of 32 bits and that many addresses.</summary>
    private bool TrySetTable(DescriptorChain chain)
    {
        ulong offset = HeaderLength;
        if (!TryReadTable(chain, ref offset, out MacAddress[]? unicast) || !TryReadTable(chain, ref offset, out MacAddress[]? multicast))
            return false;
        settings.Filter = settings.Filter.With(unicast, multicast);
        return true;
    }

    private static bool TryReadTable(DescriptorChain chain, ref ulong offset, out MacAddress[]? table)
    {
        table = null;
        if (!chain.TryRead(offset, out uint count))
            return false;
        offset += sizeof(uint);
        ulong length = (ulong)count * MacAddress.Length;
        if (chain.ReadableLength - offset < length)
            return false;
        if (count <= NetFilter.TableSize)
        {
            Span<byte> bytes = stackalloc byte[NetFilter.TableSize * MacAddress.Length];
            bytes = bytes[..(int)length];
            if (chain.Read(offset, bytes) < bytes.Length)
                return false;
            table = new MacAddress[count];
            for (int i = 0; i < table.Length; i++)
                table[i] = MacAddress.From(bytes[(i * MacAddress.Length)..]);
        }
        offset += length;
        return true;
    }

    private bool TryAcknowledge()
    {
        settings.Announce = false;
        return true;
    }

    private bool TrySetOffloads(DescriptorChain chain, ulong features)
    {
        return chain.TryRead(HeaderLength, out ulong offloads)
            && (offloads & ~(features & NetFeatures.GuestOffloads)) == 0
            && card.TrySetOffloads(NetFeatures.Consistent(offloads));
    }
}
