using Vmm.Virtio.Queues;
using Vmm.Virtio.RateLimiting;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Devices.Net;

/// <summary>
/// Sends what a transmit queue holds (VIRTIO 1.3 §5.1.6.2): the driver's segments go to the back-end as they are, header and all, and it
/// is the back-end that checks the header. Belongs to the queue's thread.
/// </summary>
/// <param name="port">Where frames go to.</param>
/// <param name="settings">The card's settings.</param>
/// <param name="counters">The pair's counters.</param>
/// <param name="pair">Which pair of queues.</param>
/// <param name="limiter">Null for no limit.</param>
/// <param name="throttle">The limiter as this queue sees it.</param>
internal sealed class NetTransmitter(
    INetPort port, NetSettings settings, NetCounters counters, int pair, RateLimiter? limiter, QueueThrottle? throttle)
{
    /// <summary>One turn's bounds: enough to make a batch of it, and short enough for the loop's other handlers.</summary>
    private const int FramesPerTurn = 64;
    private const long BytesPerTurn = 512 * 1024;

    /// <summary>Whether the back-end was full; its descriptor says when to go on.</summary>
    public bool IsBlocked { get; private set; }

    /// <summary>Whether frames of the driver are sent at all now.</summary>
    public bool IsServing => !IsBlocked && throttle is not { IsThrottled: true } && pair < settings.EnabledPairs;

    /// <summary>Forgets that it was blocked.</summary>
    public void Start() => IsBlocked = false;

    /// <summary>Sends a bounded number of frames; true when there may be more.</summary>
    public bool Serve(VirtQueue queue)
    {
        IsBlocked = false;
        // A driver does not use queues that it has not enabled (§5.1.6.5.5).
        if (pair >= settings.EnabledPairs)
            return false;
        long bytes = 0;
        int frames = 0;
        bool more = false;
        while (queue.TryTake(out DescriptorChain? chain))
        {
            if (!TrySend(chain))
            {
                queue.Untake(chain);
                break;
            }
            bytes += (long)chain.ReadableLength;
            queue.GiveBack(chain, 0);
            if (++frames == FramesPerTurn || bytes >= BytesPerTurn)
            {
                more = true;
                break;
            }
        }
        queue.Flush();
        return more;
    }

    /// <summary>Sends or drops a frame; false when it has to wait.</summary>
    private bool TrySend(DescriptorChain chain)
    {
        ulong length = chain.ReadableLength;
        if (length is < NetHeader.Length + Ethernet.HeaderLength or > NetHeader.Length + Ethernet.LongestFrame)
        {
            counters.CountMalformed();
            return true;
        }
        if (!settings.LinkUp)
        {
            counters.CountSendDrop();
            return true;
        }
        if (throttle != null && !throttle.TryTake(length - NetHeader.Length))
            return false;
        nint sent;
        do
        {
            sent = port.Send(chain.Readable);
        }
        while (sent == -EINTR);
        if (sent == -EAGAIN)
        {
            limiter?.GiveBack(length - NetHeader.Length);
            IsBlocked = true;
            return false;
        }
        if (sent < 0)
            counters.CountSendDrop();
        else
            counters.CountSent((long)length - NetHeader.Length);
        return true;
    }
}
