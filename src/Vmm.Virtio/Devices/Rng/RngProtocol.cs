namespace Vmm.Virtio.Devices.Rng;

/// <summary>The entropy device (VIRTIO 1.3 §5.4): no features, no configuration space, one queue of buffers to fill.</summary>
internal static class RngProtocol
{
    /// <summary>requestq (§5.4.2).</summary>
    internal const int RequestQueue = 0;

    internal const int QueueCount = 1;
}
