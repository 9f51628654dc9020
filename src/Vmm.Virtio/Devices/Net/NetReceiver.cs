using Vmm.Virtio.Queues;
using Vmm.Virtio.RateLimiting;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Devices.Net;

/// <summary>
/// Fills the buffers of a receive queue (VIRTIO 1.3 §5.1.6.4): the back-end writes each frame, its header first, into the driver's memory.
/// Belongs to the queue's thread.
/// </summary>
/// <param name="port">Where frames come from.</param>
/// <param name="settings">The card's settings.</param>
/// <param name="counters">The pair's counters.</param>
/// <param name="pair">Which pair of queues.</param>
/// <param name="mtu">The largest IP packet without segmentation offload, in bytes.</param>
/// <param name="throttle">Null for no limit.</param>
internal sealed class NetReceiver(INetPort port, NetSettings settings, NetCounters counters, int pair, ushort mtu, QueueThrottle? throttle)
{
    private const int FramesPerTurn = 64;
    private const long BytesPerTurn = 512 * 1024;

    private readonly ReceiveBuffers _buffers = new();
    private IVirtioHost? _host;
    private bool _mergeable;
    private bool _failed;

    // A frame that was read and not given to the driver yet: it is over the rate limit, or was longer than the buffers that there were,
    // and then the rest of it is in their overflow.
    private ulong _pending;
    private bool _pendingIsLetThrough;
    private int _pendingSegments;
    private int _pendingRest;

    /// <summary>Whether there are too few buffers to go on: the driver is to ring when there are more.</summary>
    public bool IsStarved { get; private set; }

    /// <summary>A queue begins.</summary>
    public void Start(VirtioActivation activation)
    {
        _host = activation.Host;
        _mergeable = activation.Has(NetFeatures.MergeableBuffers);
        _failed = false;
        IsStarved = false;
    }

    /// <summary>The queue ends: every buffer goes back.</summary>
    public void Stop(VirtQueue queue)
    {
        if (_pending != 0)
            Drop();
        _buffers.PutBack(queue);
        queue.Flush();
    }

    /// <summary>Receives a bounded number of frames; true when there may be more.</summary>
    public bool Serve(VirtQueue queue)
    {
        IsStarved = false;
        // A driver does not look at queues that it has not enabled (§5.1.6.5.5).
        if (_failed || pair >= settings.EnabledPairs)
            return false;
        bool more = settings.LinkUp ? Receive(queue) : Discard();
        queue.Flush();
        return more;
    }

    private bool Receive(VirtQueue queue)
    {
        ulong offloads = settings.Offloads;
        NetFilter filter = settings.Filter;
        ulong wanted = 1;
        if (_mergeable)
            wanted = NetHeader.Length + ((offloads & NetFeatures.GuestSegmentation) != 0 ? Ethernet.LongestFrame : (ulong)(mtu + Ethernet.LongestHeader));
        long bytes = 0;
        for (int frames = 0; frames < FramesPerTurn && bytes < BytesPerTurn; frames++)
        {
            bool full = TopUp(queue, Math.Max(wanted, _pending));
            if (_failed)
                return false;
            if (_pending != 0)
            {
                if (!_pendingIsLetThrough && !(_pendingIsLetThrough = IsLetThrough(_pending)))
                    return false;
                if (_buffers.Length < _pending && (full || _buffers.Count >= queue.Size))
                {
                    // The driver cannot give as much as that at once.
                    Drop();
                    continue;
                }
                if (_buffers.Length < _pending)
                {
                    IsStarved = true;
                    return false;
                }
                _buffers.CopyOverflow(_pendingSegments, _pendingRest);
                bytes += (long)_pending;
                GiveBack(queue, _pending, offloads);
                _pending = 0;
                continue;
            }
            if (_buffers.Count == 0)
            {
                IsStarved = true;
                return false;
            }
            nint got = port.Receive(_buffers.Vector);
            if (got < 0)
            {
                if (!GoesOn(got))
                    return false;
                continue;
            }
            bytes += got;
            Accept(queue, (ulong)got, offloads, filter);
        }
        return true;
    }

    /// <summary>What becomes of a frame that was read.</summary>
    private void Accept(VirtQueue queue, ulong length, ulong offloads, NetFilter filter)
    {
        if (length < NetHeader.Length + Ethernet.HeaderLength || length >= _buffers.LengthWithOverflow)
        {
            counters.CountReceiveDrop();
            return;
        }
        Span<byte> head = stackalloc byte[NetHeader.Length + MacAddress.Length];
        _buffers.Peek(head);
        if (!filter.Wants(MacAddress.From(head[NetHeader.Length..])))
        {
            counters.CountFiltered();
            return;
        }
        // A frame from before the driver said what it handles, or a buffer that is too small.
        bool fits = length <= _buffers.Length;
        if (!NetHeader.IsAllowed(head[NetHeader.FlagsOffset], head[NetHeader.GsoTypeOffset], offloads) || (!fits && !_mergeable))
        {
            counters.CountReceiveDrop();
            return;
        }
        bool isLetThrough = IsLetThrough(length);
        if (fits && isLetThrough)
        {
            GiveBack(queue, length, offloads);
            return;
        }
        _pending = length;
        _pendingIsLetThrough = isLetThrough;
        _pendingSegments = _buffers.SegmentCount;
        _pendingRest = fits ? 0 : (int)(length - _buffers.Length);
    }

    private bool IsLetThrough(ulong length) => throttle == null || throttle.TryTake(length - NetHeader.Length);

    private void GiveBack(VirtQueue queue, ulong length, ulong offloads)
    {
        int count = _buffers.CountFor(length);
        DescriptorChain first = _buffers.First;
        first.TryWrite(NetHeader.NumBuffersOffset, (ushort)count);
        // Without that feature the driver is told nothing of checksums, not even that they are right (§5.1.6.4.1).
        if ((offloads & NetFeatures.GuestCsum) == 0)
            first.TryWrite(NetHeader.FlagsOffset, (byte)0);
        counters.CountReceived((long)length - NetHeader.Length);
        while (count-- > 0)
            length = _buffers.GiveBackFirst(queue, length);
    }

    /// <summary>Takes buffers until there are this many bytes; true when it stopped because no more can be kept.</summary>
    private bool TopUp(VirtQueue queue, ulong wanted)
    {
        while (_buffers.Length < wanted && queue.TryTake(out DescriptorChain? chain))
        {
            if (chain.WritableLength < NetHeader.Length)
            {
                // §5.1.6.3.1: each buffer has room for the header at least.
                ulong length = chain.WritableLength;
                queue.Untake(chain);
                _failed = true;
                _host!.NeedsReset($"queue {queue.Index}: a receive buffer of {length} bytes has no room for a header");
                return false;
            }
            if (!_buffers.TryAppend(chain))
            {
                queue.Untake(chain);
                return true;
            }
        }
        return false;
    }

    /// <summary>Frames that come while the link is down are lost.</summary>
    private bool Discard()
    {
        if (_pending != 0)
            Drop();
        for (int frames = 0; frames < FramesPerTurn; frames++)
        {
            nint got = port.Receive(_buffers.OverflowVector);
            if (got >= 0)
                counters.CountReceiveDrop();
            else if (!GoesOn(got))
                return false;
        }
        return true;
    }

    private void Drop()
    {
        _pending = 0;
        counters.CountReceiveDrop();
    }

    /// <summary>Whether another read may give something after this one failed.</summary>
    private bool GoesOn(nint result)
    {
        if (result == -EAGAIN)
            return false;
        if (result == -EINTR)
            return true;
        counters.CountReceiveError();
        return result == -EFAULT;
    }
}
