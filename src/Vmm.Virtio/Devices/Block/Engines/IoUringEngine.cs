using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Devices.Block.Engines;

/// <summary>One io_uring for one queue: all that a turn of the queue makes goes to the kernel in one call.</summary>
internal sealed unsafe class IoUringEngine : IBlockEngine
{
    // Places in the ring's list of descriptors.
    private const int Plain = 0, Cached = 1;

    private readonly IoUring _ring;

    private IoUringEngine(IoUring ring) => _ring = ring;

    public string Name => "io_uring";

    public int Descriptor => _ring.EventDescriptor;

    /// <summary>Makes one on the thread that will use it; null, with the reason as a clause, where the kernel refuses.</summary>
    /// <param name="image">Outlives it.</param>
    /// <param name="capacity">The most operations in flight.</param>
    /// <param name="problem">Why not.</param>
    public static IoUringEngine? TryCreate(DiskImage image, int capacity, out string? problem)
    {
        IoUring? ring = IoUring.TryCreate((uint)capacity, [image.Descriptor, image.CachedDescriptor], out problem);
        return ring == null ? null : new IoUringEngine(ring);
    }

    /// <summary>Whether this process can have one: null, or why not.</summary>
    public static string? Probe()
    {
        using IoUring? ring = IoUring.TryCreate(4, [], out string? problem);
        return problem;
    }

    public void Add(in BlockOperation operation, int token)
    {
        // Safe: the entry is the next of the ring's own; the segments stay until the operation has ended.
        io_uring_sqe* entry = _ring.Next();
        entry->fd = operation.Cached ? Cached : Plain;
        entry->flags = IOSQE_FIXED_FILE;
        entry->user_data = (ulong)token;
        switch (operation.Kind)
        {
            case BlockOperationKind.Read:
            case BlockOperationKind.Write:
                bool write = operation.Kind == BlockOperationKind.Write;
                entry->opcode = write ? IORING_OP_WRITEV : IORING_OP_READV;
                entry->off = operation.Offset;
                entry->addr = (ulong)operation.Segments;
                entry->len = (uint)operation.SegmentCount;
                entry->rw_flags = write && operation.Durable ? RWF_DSYNC : 0u;
                break;
            case BlockOperationKind.Sync:
                entry->opcode = IORING_OP_FSYNC;
                entry->fsync_flags = IORING_FSYNC_DATASYNC;
                break;
            default:
                // Its mode and length stand where others have theirs and their address.
                entry->opcode = IORING_OP_FALLOCATE;
                entry->off = operation.Offset;
                entry->addr = operation.Length;
                entry->len = (uint)operation.Mode;
                break;
        }
    }

    public bool Submit() => _ring.Submit();

    public bool TryComplete(out int token, out int result)
    {
        bool ended = _ring.TryComplete(out ulong data, out result);
        token = (int)data;
        return ended;
    }

    public void Wait() => _ring.Wait();

    public void Dispose() => _ring.Dispose();
}
