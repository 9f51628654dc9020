namespace Vmm.Virtio.Devices.Console;

/// <summary>The console device (VIRTIO 1.3 §5.3).</summary>
internal static class ConsoleProtocol
{
    /// <summary>VIRTIO_CONSOLE_F_SIZE (§5.3.3): the configuration space tells the size of the terminal.</summary>
    internal const ulong SizeFeature = 1UL << 0;

    /// <summary>VIRTIO_CONSOLE_F_MULTIPORT (§5.3.3): there are further ports and two queues to control them.</summary>
    internal const ulong MultiPort = 1UL << 1;

    /// <summary>VIRTIO_CONSOLE_F_EMERG_WRITE (§5.3.3): one byte can be written without queues.</summary>
    internal const ulong EmergencyWrite = 1UL << 2;

    /// <summary>Queues of port 0 (§5.3.2).</summary>
    internal const int ReceiveQueue = 0, TransmitQueue = 1;

    /// <summary>Queues of control messages (§5.3.2), with VIRTIO_CONSOLE_F_MULTIPORT.</summary>
    internal const int ControlReceiveQueue = 2, ControlTransmitQueue = 3;

    /// <summary>Offsets in the configuration space (§5.3.4): cols and rows, le16; max_nr_ports and emerg_wr, le32.</summary>
    internal const int ColumnsOffset = 0, RowsOffset = 2, MaximumPortsOffset = 4, EmergencyWriteOffset = 8;

    internal const int ConfigurationLength = 12;

    /// <summary>A control message (§5.3.6.2): id, le32; event and value, le16; a name may follow.</summary>
    internal const int ControlLength = 8;

    /// <summary>Offsets in a control message.</summary>
    internal const int ControlIdOffset = 0, ControlEventOffset = 4, ControlValueOffset = 6;

    /// <summary>The receive queue of a port (§5.3.2); the one to transmit follows it.</summary>
    internal static int ReceiveQueueOf(int port) => port == 0 ? ReceiveQueue : (port * 2) + 2;

    /// <summary>The port of a queue that is not one of the two of control messages.</summary>
    internal static int PortOf(int queue) => queue < ControlReceiveQueue ? 0 : (queue - 2) / 2;
}

/// <summary>What a control message says (VIRTIO 1.3 §5.3.6.2).</summary>
internal enum ConsoleEvent : ushort
{
    /// <summary>VIRTIO_CONSOLE_DEVICE_READY: the driver can do ports (value 1), or failed to.</summary>
    DeviceReady = 0,

    /// <summary>VIRTIO_CONSOLE_DEVICE_ADD: there is a port.</summary>
    DeviceAdd = 1,

    /// <summary>VIRTIO_CONSOLE_DEVICE_REMOVE: there is not any more.</summary>
    DeviceRemove = 2,

    /// <summary>VIRTIO_CONSOLE_PORT_READY: the driver has made the port (value 1), or failed to.</summary>
    PortReady = 3,

    /// <summary>VIRTIO_CONSOLE_CONSOLE_PORT: the port is for a console.</summary>
    ConsolePort = 4,

    /// <summary>VIRTIO_CONSOLE_RESIZE: the console has another size.</summary>
    Resize = 5,

    /// <summary>VIRTIO_CONSOLE_PORT_OPEN: the sender has opened its end (value 1), or closed it (0).</summary>
    PortOpen = 6,

    /// <summary>VIRTIO_CONSOLE_PORT_NAME: the port's name follows.</summary>
    PortName = 7,
}
