using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Devices.Block.Engines;

/// <summary>One system call after the other, each done when it is added.</summary>
internal sealed unsafe class SyncEngine : IBlockEngine
{
    private readonly DiskImage _image;
    private readonly (int Token, int Result)[] _ended;
    private int _first, _count;

    /// <summary>Makes one.</summary>
    /// <param name="image">Outlives it.</param>
    /// <param name="capacity">The most operations between two calls of <see cref="TryComplete"/>.</param>
    public SyncEngine(DiskImage image, int capacity)
    {
        _image = image;
        _ended = new (int, int)[capacity];
    }

    public string Name => "sync";

    public int Descriptor => -1;

    public void Add(in BlockOperation operation, int token)
    {
        _ended[(_first + _count) % _ended.Length] = (token, Do(operation));
        _count++;
    }

    public bool Submit() => true;

    public bool TryComplete(out int token, out int result)
    {
        if (_count == 0)
        {
            (token, result) = (0, 0);
            return false;
        }
        (token, result) = _ended[_first];
        _first = (_first + 1) % _ended.Length;
        _count--;
        return true;
    }

    public void Wait()
    {
    }

    public void Dispose()
    {
    }

    private int Do(in BlockOperation operation)
    {
        int fd = operation.Cached ? _image.CachedDescriptor : _image.Descriptor;
        while (true)
        {
            // Safe: the segments are guest memory that was checked, or memory of ours, and stay until the operation has ended.
            nint result = operation.Kind switch
            {
                BlockOperationKind.Read => preadv2(fd, (iovec*)operation.Segments, operation.SegmentCount, (long)operation.Offset, 0),
                BlockOperationKind.Write => pwritev2(fd, (iovec*)operation.Segments, operation.SegmentCount, (long)operation.Offset, operation.Durable ? RWF_DSYNC : 0),
                BlockOperationKind.Sync => fdatasync(fd),
                _ => fallocate(fd, operation.Mode, (long)operation.Offset, (long)operation.Length),
            };
            if (result >= 0)
                return (int)result;
            int error = errno;
            if (error != EINTR)
                return -error;
        }
    }
}
