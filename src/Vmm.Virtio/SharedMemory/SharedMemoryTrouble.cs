namespace Vmm.Virtio.SharedMemory;

/// <summary>What can go wrong in a region while the guest uses it.</summary>
internal enum SharedMemoryTrouble
{
    /// <summary>A read where nothing is mapped, or not any more.</summary>
    HoleRead,

    /// <summary>A write there.</summary>
    HoleWrite,

    /// <summary>A write to a mapping that is read-only.</summary>
    ReadOnlyWrite,

    /// <summary>A mapped file became shorter.</summary>
    Truncated,

    /// <summary>The host cannot give a page of some mapping, whichever it is.</summary>
    GivenUp,

    /// <summary>The host refused a memory slot for what is mapped already.</summary>
    NotDirect,
}
