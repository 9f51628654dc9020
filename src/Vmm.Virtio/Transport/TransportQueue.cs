using Vmm.Core.Events;
using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Transport;

/// <summary>Registers of one queue, as its driver has set them, and where it stands. Under the transport's lock.</summary>
internal sealed class TransportQueue
{
    internal TransportQueue(int index, ushort maximumSize)
    {
        Index = index;
        MaximumSize = maximumSize;
        Size = maximumSize;
    }

    internal int Index { get; }

    /// <summary>The largest size that the device takes; also the size after a reset.</summary>
    internal ushort MaximumSize { get; }

    /// <summary>Signalled when the driver notifies.</summary>
    internal EventNotifier Doorbell { get; } = new();

    internal ushort Size { get; set; }

    internal ulong DescriptorArea { get; set; }

    internal ulong DriverArea { get; set; }

    internal ulong DeviceArea { get; set; }

    /// <summary>QueueReady, queue_enable. Its other registers do not change while it is set.</summary>
    internal bool Enabled { get; set; }

    /// <summary>Whether the device serves it.</summary>
    internal bool Running { get; set; }

    /// <summary>Where it begins when it is started.</summary>
    internal VirtQueueState Ring { get; set; } = VirtQueueState.Initial;

    internal VirtQueueSetup Setup => new(Index, Size, DescriptorArea, DriverArea, DeviceArea, Ring, Doorbell);

    /// <summary>Puts the registers where a reset leaves them.</summary>
    internal void Clear()
    {
        Size = MaximumSize;
        DescriptorArea = DriverArea = DeviceArea = 0;
        Enabled = false;
        Ring = VirtQueueState.Initial;
    }
}
