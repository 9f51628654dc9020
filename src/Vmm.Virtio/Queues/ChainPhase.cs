namespace Vmm.Virtio.Queues;

/// <summary>Who has a <see cref="DescriptorChain"/>.</summary>
internal enum ChainPhase : byte
{
    /// <summary>The queue; it holds nothing.</summary>
    Free,

    /// <summary>The device.</summary>
    Taken,

    /// <summary>The queue, until those taken before it were given back (VIRTIO_F_IN_ORDER).</summary>
    Waiting,
}
