using Vmm.Core.Events;
using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Transport;

/// <summary>What a queue's stop, which is under way, was asked for by.</summary>
internal enum QueueEnding
{
    /// <summary>None is under way.</summary>
    None,

    /// <summary>QueueReady: its registers stay.</summary>
    Disable,

    /// <summary>A reset of the queue.</summary>
    Reset,
}

/// <summary>Registers of one queue, as its driver has set them, and where it stands. Under the transport's lock.</summary>
internal sealed class TransportQueue
{
    internal TransportQueue(int index, ushort maximumSize, bool isServedByOthers)
    {
        Index = index;
        MaximumSize = maximumSize;
        Size = maximumSize;
        Doorbell = new EventNotifier(isServedByOthers);
        Call = isServedByOthers ? new EventNotifier(isShared: true) : null;
    }

    internal int Index { get; }

    /// <summary>The largest size that the device takes; also the size after a reset.</summary>
    internal ushort MaximumSize { get; }

    /// <summary>Signalled when the driver notifies.</summary>
    internal EventNotifier Doorbell { get; }

    /// <summary>Interrupts the driver, for a device with <see cref="VirtioDevice.HasExternalCalls"/>.</summary>
    internal EventNotifier? Call { get; }

    internal ushort Size { get; set; }

    internal ulong DescriptorArea { get; set; }

    internal ulong DriverArea { get; set; }

    internal ulong DeviceArea { get; set; }

    /// <summary>QueueReady, queue_enable. Its other registers do not change while it is set.</summary>
    internal bool Enabled { get; set; }

    /// <summary>Whether the device serves it.</summary>
    internal bool Running { get; set; }

    /// <summary>Why it is being stopped. It is enabled and running still, and its registers do not change.</summary>
    internal QueueEnding Ending { get; set; }

    /// <summary>It is being stopped because the device has no access to memory, and is running still.</summary>
    internal bool FallsSilent { get; set; }

    /// <summary>Where it begins when it is started.</summary>
    internal VirtQueueState Ring { get; set; } = VirtQueueState.Initial;

    internal VirtQueueSetup Setup => new(Index, Size, DescriptorArea, DriverArea, DeviceArea, Ring, Doorbell, Call);

    /// <summary>Puts the registers where a reset leaves them.</summary>
    internal void Clear()
    {
        Size = MaximumSize;
        DescriptorArea = DriverArea = DeviceArea = 0;
        Enabled = false;
        Ending = QueueEnding.None;
        Ring = VirtQueueState.Initial;
    }
}
