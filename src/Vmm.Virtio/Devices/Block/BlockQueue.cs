using System.Runtime.InteropServices;
using Vmm.Core.Events;
using Vmm.Core.Interop;
using Vmm.Core.Memory;
using Vmm.Virtio.Devices.Block.Engines;
using Vmm.Virtio.Queues;
using Vmm.Virtio.RateLimiting;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Devices.Block;

/// <summary>
/// One running queue of a block device: takes requests, turns them into operations of its engine, and gives them back. All on the thread
/// of its loop; nothing is allocated after it was made.
/// </summary>
internal sealed unsafe class BlockQueue : IEventHandler
{
    // Chains of one turn, and rounds of operations that follow from others: what keeps a turn short.
    private const int ChainsPerTurn = 64, RoundsPerTurn = 64;

    private const int PunchHole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, ZeroRange = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;

    private readonly BlockDevice _device;
    private readonly VirtQueue _queue;
    private readonly DiskImage _image;
    private readonly IBlockEngine _engine;
    private readonly IVirtioHost _host;
    private readonly BlockCounters _counters;
    private readonly QueueThrottle? _throttle;
    private readonly BlockRequest[] _requests;
    // One segment of its own for each slot: a bounce buffer, or zeroes.
    private readonly GuestSegment* _own;
    private BouncePool? _bounces;
    private int _inFlight;
    private bool _added;
    private bool _failed;

    /// <summary>Makes it; it owns the engine and the throttle.</summary>
    public BlockQueue(
        BlockDevice device, VirtQueue queue, DiskImage image, IBlockEngine engine, IVirtioHost host, BlockCounters counters, QueueThrottle? throttle)
    {
        (_device, _queue, _image, _engine, _host, _counters, _throttle) = (device, queue, image, engine, host, counters, throttle);
        // Data go to and from it by the kernel, which answers EFAULT for a page that is not there.
        queue.ReachesVanishing = true;
        _requests = new BlockRequest[queue.Size];
        _own = (GuestSegment*)NativeMemory.AllocZeroed(queue.Size, (nuint)sizeof(GuestSegment));
    }

    /// <summary>Readable when an operation has ended; -1 where none ends by itself.</summary>
    public int EngineDescriptor => _engine.Descriptor;

    /// <summary>The engine's name.</summary>
    public string EngineName => _engine.Name;

    /// <summary>Whether it waits for the rate limiter.</summary>
    public bool IsThrottled => _throttle?.IsThrottled ?? false;

    /// <summary>Takes and begins what there is; true when there is more to do.</summary>
    public bool Serve()
    {
        Reap();
        int taken = 0;
        while (taken < ChainsPerTurn && _queue.TryTake(out DescriptorChain? chain))
        {
            if (!TryBegin(chain))
            {
                _queue.Untake(chain);
                break;
            }
            taken++;
        }
        return Advance() || taken == ChainsPerTurn;
    }

    /// <summary>Operations have ended.</summary>
    public bool Handle()
    {
        if (_failed || _queue.IsBroken)
            return false;
        try
        {
            Reap();
            return Advance();
        }
        catch (Exception e)
        {
            // As where a doorbell is served: a defect of ours costs this device, not the machine.
            _failed = true;
            _host.NeedsReset($"queue {_queue.Index}: this program failed on it, which is a defect: {e.GetType().Name}: {e.Message}");
            return false;
        }
    }

    /// <summary>Waits for what is in flight, gives it back, and gives up the engine. The loop does not watch it any more.</summary>
    public void Stop()
    {
        while (_inFlight > 0)
        {
            // Where the kernel took only a part, something of it may be in flight or nothing: not to be waited for.
            bool all = _engine.Submit();
            _added = false;
            if (Reap() == 0 && all)
                _engine.Wait();
        }
        _queue.Flush();
        _engine.Dispose();
        _throttle?.Dispose();
        _bounces?.Dispose();
        NativeMemory.Free(_own);
    }

    /// <summary>Lets operations begin and end until there is nothing to be done at once; true when it is to be called again soon.</summary>
    private bool Advance()
    {
        bool more = false;
        bool began = _added && _engine.Descriptor >= 0;
        for (int round = 0; _added; round++)
        {
            if (round == RoundsPerTurn)
            {
                more = true;
                break;
            }
            _added = false;
            more = !_engine.Submit();
            _added |= more;
            Reap();
            if (more)
                break;
        }
        _queue.Flush();
        // An operation that ends on another processor just as the engine turns its event on again may be missed by both; a turn later it
        // is seen.
        return more || (began && _inFlight > 0);
    }

    /// <summary>Takes what has ended, each request once: what an ended one adds may itself have ended by then.</summary>
    private int Reap()
    {
        int ended = 0;
        while (ended < _requests.Length && _engine.TryComplete(out int slot, out int result))
        {
            ended++;
            Ended(slot, ref _requests[slot], result);
        }
        return ended;
    }

    /// <summary>Begins a request, or gives it back at once; false, with nothing done, where the rate limiter refuses it.</summary>
    private bool TryBegin(DescriptorChain chain)
    {
        ref BlockRequest request = ref _requests[chain.Slot];
        ulong data = chain.WritableLength - 1;
        if (chain.WritableLength == 0)
        {
            // Nowhere to put a status; all that can be done is to give it back.
            _counters.CountBadRequest();
            _queue.GiveBack(chain, 0);
            return true;
        }
        GuestSegment last = chain.Writable[^1];
        // Kept by its address: the segments are cut while the request goes on.
        request = new BlockRequest { Chain = chain, Bounce = -1, Status = (byte*)last.Host + last.Length - 1 };
        if (!chain.TryRead(0, out BlockRequestHeader header))
            return Refuse(ref request, BlockStatus.IoError);
        request.Type = (BlockRequestType)header.Type;
        bool reads = request.Type == BlockRequestType.In;
        ulong length = reads ? data : request.Type == BlockRequestType.Out ? chain.ReadableLength - BlockRequestHeader.Length : 0;
        BlockStatus status = Check(request.Type, header.Sector, length, chain, out int ranges);
        if (status != BlockStatus.Ok)
            return Refuse(ref request, status);
        if (_throttle != null && !Let(length))
            return false;
        _inFlight++;
        // Read once: writes that begin while the cache is off are durable when they end (VIRTIO 1.3 §5.2.6.2).
        request.Durable = _device.IsWriteThrough;
        request.Ranges = ranges;
        switch (request.Type)
        {
            case BlockRequestType.In:
            case BlockRequestType.Out:
                request.Offset = header.Sector * DiskImage.SectorSize;
                if (length == 0)
                    Finish(ref request, BlockStatus.Ok);
                else
                    BeginData(ref request, chain, reads, length);
                break;
            case BlockRequestType.Flush:
                BeginSync(ref request);
                break;
            case BlockRequestType.GetId:
                request.Delivered = (ulong)chain.Write(0, _device.Serial[..(int)Math.Min(data, BlockDevice.SerialLength)]);
                Finish(ref request, BlockStatus.Ok);
                break;
            default:
                BeginRange(ref request);
                break;
        }
        return true;
    }

    private bool Let(ulong bytes)
    {
        bool waits = IsThrottled;
        if (_throttle!.TryTake(bytes))
            return true;
        if (!waits)
            _counters.CountThrottle();
        return false;
    }

    /// <summary>What VIRTIO 1.3 §5.2.6 asks of a request, as far as its head and lengths tell.</summary>
    private BlockStatus Check(BlockRequestType type, ulong sector, ulong length, DescriptorChain chain, out int ranges)
    {
        ranges = 0;
        switch (type)
        {
            case BlockRequestType.In:
            case BlockRequestType.Out:
                ulong capacity = _image.Sectors;
                bool fits = length % DiskImage.SectorSize == 0 && sector <= capacity && length / DiskImage.SectorSize <= capacity - sector;
                return fits && !(type == BlockRequestType.Out && _image.ReadOnly) ? BlockStatus.Ok : BlockStatus.IoError;
            case BlockRequestType.Flush:
            case BlockRequestType.GetId:
                return BlockStatus.Ok;
            case BlockRequestType.Discard:
            case BlockRequestType.WriteZeroes:
                if (_image.ReadOnly || (type == BlockRequestType.Discard && !_image.CanDiscard))
                    return BlockStatus.Unsupported;
                ulong bytes = chain.ReadableLength - BlockRequestHeader.Length;
                if (bytes == 0 || bytes % BlockRange.Length != 0 || bytes / BlockRange.Length > BlockDevice.MaximumRanges)
                    return BlockStatus.IoError;
                ranges = (int)(bytes / BlockRange.Length);
                return BlockStatus.Ok;
            default:
                return BlockStatus.Unsupported;
        }
    }

    private void BeginData(ref BlockRequest request, DescriptorChain chain, bool reads, ulong length)
    {
        request.Phase = BlockPhase.Data;
        if (reads)
            request.SetData(chain.Segments + chain.ReadableCount, chain.Writable.Length, 0, length);
        else
            request.SetData(chain.Segments, chain.ReadableCount, BlockRequestHeader.Length, length);
        AddData(ref request);
    }

    /// <summary>Lets the engine do what is left of a request's data, or as much of it as a bounce buffer holds.</summary>
    private void AddData(ref BlockRequest request)
    {
        bool reads = request.Type == BlockRequestType.In;
        BlockOperationKind kind = reads ? BlockOperationKind.Read : BlockOperationKind.Write;
        GuestSegment* segments = request.Segments;
        int count = request.SegmentCount;
        bool cached = _image.IsDirect && ((request.Offset | request.Remaining) & (_image.DirectOffsetAlignment - 1)) != 0;
        bool bounced = _image.IsDirect && !cached && !IsAligned(segments, count);
        if (request.Bounce < 0 && bounced)
        {
            // Where there is no buffer left, the page cache takes it, however it lies.
            request.Bounce = (_bounces ??= new BouncePool()).TryRent();
            cached = request.Bounce < 0;
            if (!cached)
                _counters.CountBounce();
        }
        else if (request.Bounce >= 0 && !bounced)
        {
            _bounces!.Return(request.Bounce);
            request.Bounce = -1;
        }
        if (request.Bounce >= 0)
        {
            byte* buffer = _bounces!.Address(request.Bounce);
            int length = (int)Math.Min(request.Remaining, BouncePool.BufferSize);
            if (!reads && !request.TryCopy(buffer, length, toGuest: false))
            {
                Failed(ref request, -EFAULT);
                return;
            }
            segments = _own + request.Chain!.Slot;
            count = 1;
            *segments = new GuestSegment((nint)buffer, (nuint)length);
        }
        Add(request, new BlockOperation { Kind = kind, Cached = cached, Durable = request.Durable, Offset = request.Offset, Segments = segments, SegmentCount = count });
    }

    private bool IsAligned(GuestSegment* segments, int count)
    {
        nuint address = _image.DirectMemoryAlignment - 1;
        nuint length = _image.DirectOffsetAlignment - 1;
        for (int i = 0; i < count; i++)
        {
            if (((nuint)segments[i].Host & address) != 0 || (segments[i].Length & length) != 0)
                return false;
        }
        return true;
    }

    private void BeginSync(ref BlockRequest request)
    {
        request.Phase = BlockPhase.Sync;
        Add(request, new BlockOperation { Kind = BlockOperationKind.Sync });
    }

    /// <summary>Begins the next range of a discard or write zeroes request that has something to do; after the last one it is done.</summary>
    private void BeginRange(ref BlockRequest request)
    {
        bool discards = request.Type == BlockRequestType.Discard;
        while (request.NextRange < request.Ranges)
        {
            // Each is read from guest memory once, here, checked and used.
            int offset = BlockRequestHeader.Length + (request.NextRange++ * BlockRange.Length);
            _ = request.Chain!.TryRead((ulong)offset, out BlockRange range);
            BlockStatus status = Check(range, discards);
            if (status != BlockStatus.Ok)
            {
                _counters.CountBadRequest();
                Finish(ref request, status);
                return;
            }
            if (range.Sectors == 0)
                continue;
            request.Offset = range.Sector * DiskImage.SectorSize;
            request.Remaining = (ulong)range.Sectors * DiskImage.SectorSize;
            request.Phase = BlockPhase.Range;
            if (discards && _image.IsBlockDevice)
            {
                // There is no asynchronous way to it in the kernels that are supported.
                Discard(request.Offset, request.Remaining);
                continue;
            }
            int mode = discards || (range.Flags & BlockRange.Unmap) != 0 ? PunchHole : ZeroRange;
            Add(request, new BlockOperation { Kind = BlockOperationKind.Allocate, Offset = request.Offset, Mode = mode, Length = request.Remaining });
            return;
        }
        if (request.Durable)
            BeginSync(ref request);
        else
            Finish(ref request, BlockStatus.Ok);
    }

    /// <summary>What VIRTIO 1.3 §5.2.6.2 asks of a range.</summary>
    private BlockStatus Check(in BlockRange range, bool discards)
    {
        if ((range.Flags & ~BlockRange.Unmap) != 0 || (discards && range.Flags != 0))
            return BlockStatus.Unsupported;
        ulong capacity = _image.Sectors;
        uint most = discards ? BlockDevice.MaximumDiscardSectors : BlockDevice.MaximumWriteZeroesSectors;
        return range.Sectors <= most && range.Sector <= capacity && range.Sectors <= capacity - range.Sector ? BlockStatus.Ok : BlockStatus.IoError;
    }

    /// <summary>A discard is a hint: that the host could not take it is no error.</summary>
    private void Discard(ulong offset, ulong length)
    {
        ulong* range = stackalloc ulong[2] { offset, length };
        _ = ioctl(_image.Descriptor, BLKDISCARD, range);
    }

    private void AddZeroes(ref BlockRequest request)
    {
        request.Phase = BlockPhase.Zeroes;
        GuestSegment* segment = _own + request.Chain!.Slot;
        *segment = new GuestSegment((nint)ZeroPages.Address, (nuint)Math.Min(request.Remaining, ZeroPages.Length));
        bool cached = _image.IsDirect && ((request.Offset | segment->Length) & (_image.DirectOffsetAlignment - 1)) != 0;
        Add(request, new BlockOperation
        {
            Kind = BlockOperationKind.Write,
            Cached = cached,
            Durable = request.Durable,
            Offset = request.Offset,
            Segments = segment,
            SegmentCount = 1,
        });
    }

    private void Add(in BlockRequest request, in BlockOperation operation)
    {
        _engine.Add(operation, request.Chain!.Slot);
        _added = true;
    }

    /// <summary>An operation of a request has ended.</summary>
    private void Ended(int slot, ref BlockRequest request, int result)
    {
        if (result is -EINTR or -EAGAIN)
        {
            Repeat(ref request);
            return;
        }
        switch (request.Phase)
        {
            case BlockPhase.Data when result > 0:
                EndedData(slot, ref request, (uint)result);
                break;
            case BlockPhase.Zeroes when result > 0:
                request.Offset += (uint)result;
                request.Remaining -= (uint)result;
                if (request.Remaining > 0)
                    AddZeroes(ref request);
                else
                    BeginRange(ref request);
                break;
            case BlockPhase.Sync when result >= 0:
                Finish(ref request, BlockStatus.Ok);
                break;
            case BlockPhase.Range when result >= 0:
                BeginRange(ref request);
                break;
            // The host cannot do it as asked: a discard is only a hint, and zeroes can be written.
            case BlockPhase.Range when result is -EOPNOTSUPP or -EINVAL or -ENODEV or -ENOSYS:
                if (request.Type == BlockRequestType.Discard)
                    BeginRange(ref request);
                else
                    AddZeroes(ref request);
                break;
            default:
                Failed(ref request, result);
                break;
        }
    }

    private void EndedData(int slot, ref BlockRequest request, uint bytes)
    {
        if (request.Type == BlockRequestType.In)
        {
            if (request.Bounce >= 0 && !request.TryCopy((byte*)_own[slot].Host, (int)bytes, toGuest: true))
            {
                Failed(ref request, -EFAULT);
                return;
            }
            request.Delivered += bytes;
        }
        request.Advance(bytes);
        if (request.Remaining == 0)
        {
            Finish(ref request, BlockStatus.Ok);
            return;
        }
        _counters.CountContinuation();
        AddData(ref request);
    }

    /// <summary>Nothing of the operation was done: once more.</summary>
    private void Repeat(ref BlockRequest request)
    {
        switch (request.Phase)
        {
            case BlockPhase.Data:
                AddData(ref request);
                break;
            case BlockPhase.Zeroes:
                AddZeroes(ref request);
                break;
            case BlockPhase.Sync:
                BeginSync(ref request);
                break;
            default:
                // The range is read again, and checked again.
                request.NextRange--;
                BeginRange(ref request);
                break;
        }
    }

    private void Failed(ref BlockRequest request, int result)
    {
        _counters.CountHostError();
        _device.HostFailed(request.Type, request.Offset, result);
        Finish(ref request, BlockStatus.IoError);
    }

    /// <summary>Gives back a request that broke a rule; true.</summary>
    private bool Refuse(ref BlockRequest request, BlockStatus status)
    {
        _counters.CountBadRequest();
        _inFlight++;
        Finish(ref request, status);
        return true;
    }

    private void Finish(ref BlockRequest request, BlockStatus status)
    {
        DescriptorChain chain = request.Chain!;
        if (request.Bounce >= 0)
            _bounces!.Return(request.Bounce);
        if (status == BlockStatus.Ok)
            Count(request);
        ulong data = chain.WritableLength - 1;
        // A status whose page has vanished is lost; it was the driver's wish to have it there.
        // Else safe: the last byte of a segment that was checked to be RAM.
        if (chain.MayVanish)
            FaultableMemory.Write(request.Status, [(byte)status]);
        else
            *request.Status = (byte)status;
        request.Chain = null;
        _inFlight--;
        // What is said to be written begins at the start (VIRTIO 1.3 §2.7.8.2): the status counts only where nothing before it is missing.
        ulong written = request.Delivered == data ? chain.WritableLength : request.Delivered;
        _queue.GiveBack(chain, (uint)Math.Min(written, uint.MaxValue));
    }

    private void Count(in BlockRequest request)
    {
        switch (request.Type)
        {
            case BlockRequestType.In:
                _counters.CountRead(request.Delivered);
                break;
            case BlockRequestType.Out:
                _counters.CountWrite(request.Chain!.ReadableLength - BlockRequestHeader.Length);
                break;
            case BlockRequestType.Flush:
                _counters.CountFlush();
                break;
            case BlockRequestType.Discard:
                _counters.CountDiscard();
                break;
            case BlockRequestType.WriteZeroes:
                _counters.CountWriteZeroes();
                break;
        }
    }
}
