namespace Vmm.Virtio;

/// <summary>Device types (VIRTIO 1.3 §5); other ids may be cast in, a generic front-end carries any of them.</summary>
public enum VirtioDeviceType : ushort
{
    /// <summary>Network card (§5.1).</summary>
    Network = 1,

    /// <summary>Block device (§5.2).</summary>
    Block = 2,

    /// <summary>Console (§5.3).</summary>
    Console = 3,

    /// <summary>Entropy source (§5.4).</summary>
    Entropy = 4,

    /// <summary>Traditional memory balloon (§5.5).</summary>
    Balloon = 5,

    /// <summary>Graphics card (§5.7).</summary>
    Gpu = 16,

    /// <summary>Socket (§5.10).</summary>
    Socket = 19,

    /// <summary>Memory device (§5.15).</summary>
    Memory = 24,

    /// <summary>File system (§5.11).</summary>
    FileSystem = 26,

    /// <summary>Persistent memory (§5.19).</summary>
    PersistentMemory = 27,
}
