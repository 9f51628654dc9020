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
/// <param name="Kind">What it does.</param>
/// <param name="Cached">Through the page cache, also where the image passes it by.</param>
/// <param name="Durable">A write is on the medium when it ends (RWF_DSYNC).</param>
/// <param name="Offset">Where in the image, in bytes.</param>
/// <param name="Segments">Memory; stays where it is until the operation has ended.</param>
/// <param name="SegmentCount">How many, at most the kernel's UIO_MAXIOV.</param>
/// <param name="Mode">fallocate's mode.</param>
/// <param name="Length">fallocate's length.</param>
internal readonly unsafe record struct BlockOperation(
    BlockOperationKind Kind,
    bool Cached,
    bool Durable,
    ulong Offset,
    GuestSegment* Segments,
    int SegmentCount,
    int Mode,
    ulong Length);

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
