using System.Buffers.Binary;
using static Vmm.Virtio.Devices.Console.ConsoleProtocol;

namespace Vmm.Virtio.Devices.Console;

/// <summary>
/// Control messages (VIRTIO 1.3 §5.3.6.2), of the device with ports. What is to be told is kept as flags of each port, not as a list of
/// messages: a driver that asks over and over makes nothing grow.
/// </summary>
internal sealed class ConsoleControl(IReadOnlyList<ConsolePort> ports, bool hasConsole)
{
    /// <summary>The longest message that the device sends.</summary>
    internal const int LongestMessage = ControlLength + ConsolePortEnd.LongestName;

    /// <summary>Whether there is something to tell the driver.</summary>
    internal bool HasMessage
    {
        get
        {
            for (int i = 0; i < ports.Count; i++)
            {
                if (NextOf(ports[i]) != null)
                    return true;
            }
            return false;
        }
    }

    /// <summary>Takes a driver's message. What it says of ports that are not there, and what only devices say, is dropped.</summary>
    /// <returns>The port whose transmit queue is to be looked at, as its end was closed; null for none.</returns>
    internal int? Handle(ReadOnlySpan<byte> message)
    {
        if (message.Length < ControlLength)
            return null;
        uint id = BinaryPrimitives.ReadUInt32LittleEndian(message[ControlIdOffset..]);
        var what = (ConsoleEvent)BinaryPrimitives.ReadUInt16LittleEndian(message[ControlEventOffset..]);
        bool value = BinaryPrimitives.ReadUInt16LittleEndian(message[ControlValueOffset..]) != 0;
        if (what == ConsoleEvent.DeviceReady)
        {
            // The id means nothing there (§5.3.6.2).
            if (value)
                Announce();
            return null;
        }
        if (id >= ports.Count)
            return null;
        ConsolePort port = ports[(int)id];
        switch (what)
        {
            case ConsoleEvent.PortReady when value:
                // Told again to who says it again: a driver that has made the port anew knows nothing of it.
                port.Flags = (port.Flags & ConsolePortFlags.GuestOpen) | ConsolePortFlags.Ready
                    | (port.End != null ? ConsolePortFlags.NameDue : ConsolePortFlags.ConsoleDue) | ConsolePortFlags.OpenDue;
                break;
            case ConsoleEvent.PortReady:
                port.Flags &= ConsolePortFlags.GuestOpen;
                break;
            case ConsoleEvent.PortOpen:
                return port.SetGuestOpen(value) ? (int)id : null;
        }
        return null;
    }

    /// <summary>The next message to the driver; 0 bytes where there is none.</summary>
    /// <param name="message">At least <see cref="LongestMessage"/> bytes.</param>
    internal int Next(Span<byte> message)
    {
        for (int i = 0; i < ports.Count; i++)
        {
            if (NextOf(ports[i]) is { } next)
                return Tell(message, i, ports[i], next);
        }
        return 0;
    }

    private static ConsolePortFlags? NextOf(ConsolePort port)
    {
        ConsolePortFlags due = port.Flags & (ConsolePortFlags.AddDue | ConsolePortFlags.ConsoleDue | ConsolePortFlags.NameDue | ConsolePortFlags.OpenDue);
        // The lowest of them.
        return due != 0 ? due & (ConsolePortFlags)(-(int)due) : port.IsHangUpDue ? ConsolePortFlags.HungUp : null;
    }

    private static int Tell(Span<byte> message, int id, ConsolePort port, ConsolePortFlags what)
    {
        port.Flags &= ~what;
        switch (what)
        {
            case ConsolePortFlags.AddDue:
                return Write(message, id, ConsoleEvent.DeviceAdd, 0);
            case ConsolePortFlags.ConsoleDue:
                return Write(message, id, ConsoleEvent.ConsolePort, 1);
            case ConsolePortFlags.NameDue:
                port.End!.NameBytes.CopyTo(message[ControlLength..]);
                return Write(message, id, ConsoleEvent.PortName, 1) + port.End.NameBytes.Length;
            case ConsolePortFlags.OpenDue:
                port.Flags |= ConsolePortFlags.Open;
                return Write(message, id, ConsoleEvent.PortOpen, 1);
            default:
                port.Flags = (port.Flags & ~ConsolePortFlags.Open) | ConsolePortFlags.HungUp;
                return Write(message, id, ConsoleEvent.PortOpen, 0);
        }
    }

    private static int Write(Span<byte> message, int id, ConsoleEvent what, ushort value)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(message[ControlIdOffset..], (uint)id);
        BinaryPrimitives.WriteUInt16LittleEndian(message[ControlEventOffset..], (ushort)what);
        BinaryPrimitives.WriteUInt16LittleEndian(message[ControlValueOffset..], value);
        return ControlLength;
    }

    private void Announce()
    {
        for (int i = hasConsole ? 0 : 1; i < ports.Count; i++)
        {
            // A port that the driver has made already is not added twice.
            if (!ports[i].Has(ConsolePortFlags.Ready))
                ports[i].Flags |= ConsolePortFlags.AddDue;
        }
    }
}
