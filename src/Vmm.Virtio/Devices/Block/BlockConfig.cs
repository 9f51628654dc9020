using System.Numerics;
using System.Text;
using Vmm.Core;
using Vmm.Virtio.RateLimiting;

namespace Vmm.Virtio.Devices.Block;

/// <summary>How a block device reaches its image.</summary>
public enum BlockEngineKind
{
    /// <summary>io_uring where the kernel has it and allows it, otherwise <see cref="Sync"/>.</summary>
    Auto,

    /// <summary>io_uring; an error where it is not to be had.</summary>
    IoUring,

    /// <summary>One system call after the other on the queue's thread.</summary>
    Sync,
}

/// <summary>What a block device is to be.</summary>
public sealed record BlockConfig
{
    /// <summary>The most queues of one device.</summary>
    public const int MaximumQueues = 64;

    /// <summary>The smallest and largest queue.</summary>
    public const int MinimumQueueSize = 4, MaximumQueueSize = 1024;

    /// <summary>The name that people give it, unique in the machine.</summary>
    public required string Id { get; init; }

    /// <summary>A raw image file or a block device.</summary>
    public required string Path { get; init; }

    /// <summary>The guest cannot write it; several machines may share it.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>Past the host's page cache (O_DIRECT).</summary>
    public bool Direct { get; init; }

    /// <summary>Queues, 1 to <see cref="MaximumQueues"/>.</summary>
    public int NumQueues { get; init; } = 1;

    /// <summary>Descriptors of each queue: a power of two from <see cref="MinimumQueueSize"/> to <see cref="MaximumQueueSize"/>.</summary>
    public int QueueSize { get; init; } = 128;

    /// <summary>What the guest sees as the disk's serial: at most 20 bytes of ASCII. Null for the id, as much of it as fits.</summary>
    public string? Serial { get; init; }

    /// <summary>How it reaches its image.</summary>
    public BlockEngineKind Engine { get; init; }

    /// <summary>Limits; those of reads and writes together.</summary>
    public RateLimiterConfig RateLimiter { get; init; }

    /// <summary>Refuses what cannot be meant. The image is not looked at.</summary>
    /// <exception cref="VmmException">Something is wrong.</exception>
    public void Validate()
    {
        if (string.IsNullOrEmpty(Path))
            throw VmmException.Configuration($"The disk {Id} has no path; give it one (--disk path=FILE).");
        if (NumQueues is < 1 or > MaximumQueues)
            throw VmmException.Configuration($"The disk {Id} cannot have {NumQueues} queues; give it 1 to {MaximumQueues} (num_queues=).");
        if (QueueSize is < MinimumQueueSize or > MaximumQueueSize || !BitOperations.IsPow2(QueueSize))
            throw VmmException.Configuration($"The disk {Id} cannot have queues of {QueueSize}; give them a power of two from {MinimumQueueSize} to {MaximumQueueSize} (queue_size=).");
        if (Serial is { } serial && (serial.Length > BlockDevice.SerialLength || !Ascii.IsValid(serial) || serial.Any(char.IsControl)))
            throw VmmException.Configuration($"The disk {Id} cannot have the serial \"{serial}\": it takes at most {BlockDevice.SerialLength} printable ASCII characters.");
        RateLimiter.Validate();
    }
}
