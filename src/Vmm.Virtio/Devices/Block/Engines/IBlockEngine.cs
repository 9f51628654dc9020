using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Devices.Block.Engines;

/// <summary>What an operation does to the image.</summary>
internal enum BlockOperationKind : byte
{
    /// <summary>preadv(2).</summary>
    Read,

    /// <summary>pwritev(2).</summary>
    Write,

    /// <summary>fdatasync(2).</summary>
    Sync,

    /// <summary>fallocate(2).</summary>
    Allocate,
}

/// <summary>One operation on the image, as both engines take it.</summary>
internal readonly unsafe struct BlockOperation
{
    /// <summary>What it does.</summary>
    public required BlockOperationKind Kind { get; init; }

    /// <summary>Through the page cache, also where the image passes it by.</summary>
    public bool Cached { get; init; }

    /// <summary>A write is on the medium when it ends (RWF_DSYNC).</summary>
    public bool Durable { get; init; }

    /// <summary>Where in the image, in bytes.</summary>
    public ulong Offset { get; init; }

    /// <summary>Memory; stays where it is until the operation has ended.</summary>
    public GuestSegment* Segments { get; init; }

    /// <summary>How many, at most the kernel's UIO_MAXIOV.</summary>
    public int SegmentCount { get; init; }

    /// <summary>fallocate's mode.</summary>
    public int Mode { get; init; }

    /// <summary>fallocate's length.</summary>
    public ulong Length { get; init; }
}

/// <summary>Does operations for one queue, on the thread of its loop. No member allocates.</summary>
internal interface IBlockEngine : IDisposable
{
    /// <summary>The name of its kind.</summary>
    string Name { get; }

    /// <summary>A descriptor that becomes readable when an operation has ended; -1 where all have by the time <see cref="Submit"/> returns.</summary>
    int Descriptor { get; }

    /// <summary>
    /// Takes an operation, which begins at the next <see cref="Submit"/> at the latest. There is room for as many in flight as the engine
    /// was made for.
    /// </summary>
    /// <param name="operation">What to do.</param>
    /// <param name="token">Comes back when it has ended.</param>
    void Add(in BlockOperation operation, int token);

    /// <summary>Begins what was taken; false when the host is short of something for the moment: to be repeated.</summary>
    bool Submit();

    /// <summary>Takes an ended operation; its result is bytes, or an errno below 0.</summary>
    bool TryComplete(out int token, out int result);

    /// <summary>Waits until an operation has ended that was begun; there is one.</summary>
    void Wait();
}
