namespace Vmm.Virtio.Devices.Console;

/// <summary>The console device (VIRTIO 1.3 §5.3), with one port.</summary>
internal static class ConsoleProtocol
{
    /// <summary>VIRTIO_CONSOLE_F_SIZE (§5.3.3): the configuration space tells the size of the terminal.</summary>
    internal const ulong SizeFeature = 1UL << 0;

    /// <summary>VIRTIO_CONSOLE_F_EMERG_WRITE (§5.3.3): one byte can be written without queues.</summary>
    internal const ulong EmergencyWrite = 1UL << 2;

    /// <summary>Queues of port 0 (§5.3.2).</summary>
    internal const int ReceiveQueue = 0, TransmitQueue = 1;

    /// <summary>Offsets in the configuration space (§5.3.4): cols and rows, le16; max_nr_ports and emerg_wr, le32.</summary>
    internal const int ColumnsOffset = 0, RowsOffset = 2, MaximumPortsOffset = 4, EmergencyWriteOffset = 8;

    internal const int ConfigurationLength = 12;
}
