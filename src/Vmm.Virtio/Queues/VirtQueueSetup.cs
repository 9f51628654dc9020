using Vmm.Core.Events;

namespace Vmm.Virtio.Queues;

/// <summary>A queue as a driver set it up. Nothing of it has been checked but the size.</summary>
/// <param name="Index">Which queue of the device.</param>
/// <param name="Size">Descriptors: 1 to the device's largest; a power of two for a split queue.</param>
/// <param name="DescriptorArea">Guest address of the descriptor table or ring.</param>
/// <param name="DriverArea">Guest address of the available ring, or of the driver's event suppression structure.</param>
/// <param name="DeviceArea">Guest address of the used ring, or of the device's event suppression structure.</param>
/// <param name="State">Where to begin.</param>
/// <param name="Doorbell">Signalled when the driver notifies the queue; the transport's to dispose of.</param>
/// <param name="Call">
/// Interrupts the driver for the queue when it is signalled, by whichever process; it never changes, and is the transport's to dispose of.
/// Null for a device without <see cref="VirtioDevice.HasExternalCalls"/>.
/// </param>
public readonly record struct VirtQueueSetup(
    int Index,
    ushort Size,
    ulong DescriptorArea,
    ulong DriverArea,
    ulong DeviceArea,
    VirtQueueState State,
    EventNotifier Doorbell,
    EventNotifier? Call = null);
