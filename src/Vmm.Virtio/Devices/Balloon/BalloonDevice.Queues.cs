using System.Runtime.InteropServices;
using Vmm.Core.Memory;
using Vmm.Virtio.Queues;
using static Vmm.Virtio.Devices.Balloon.BalloonProtocol;

namespace Vmm.Virtio.Devices.Balloon;

/// <summary>Its queues. A request may be of any length: it is served in parts, so that no other queue of the loop waits for it.</summary>
public sealed partial class BalloonDevice
{
    /// <summary>Page numbers that are sorted and merged together; Linux sends 256 at a time.</summary>
    private const int PagesPerBatch = 1024;

    /// <summary>Page numbers of one turn: each may cost a system call of 1 to 2 us, when none is another's neighbour.</summary>
    private const int MaximumPagesPerTurn = 2048;

    /// <summary>Requests of one turn, of whatever length.</summary>
    private const int MaximumRequestsPerTurn = 64;

    /// <summary>Reported bytes of one turn: freeing 64 MiB takes the kernel some milliseconds.</summary>
    private const ulong MaximumReportPerTurn = 64 << 20;

    // The request that is being served, or whose answer waits, of each queue; always the one that was taken last.
    private readonly DescriptorChain?[] _held = new DescriptorChain?[QueueCount];
    private readonly ulong[] _offsets = new ulong[QueueCount];
    private bool _statsReady;

    /// <inheritdoc/>
    protected override void QueueStarted(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        _roles[queue.Index] = RoleOf(queue.Index, Activation!.Features);
        _held[queue.Index] = null;
    }

    /// <inheritdoc/>
    protected override void QueueStopping(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        if (_held[queue.Index] is { } chain)
        {
            // Served again from its beginning when the queue goes on: nothing counts twice.
            queue.Untake(chain);
            _held[queue.Index] = null;
        }
        if (_roles[queue.Index] == BalloonQueueRole.Statistics)
        {
            _statsReady = false;
            _statsTimer.Disarm();
        }
        queue.Flush();
    }

    /// <inheritdoc/>
    protected override bool ServeQueue(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        bool more = _roles[queue.Index] switch
        {
            BalloonQueueRole.Inflate => ServePages(queue, true),
            BalloonQueueRole.Deflate => ServePages(queue, false),
            BalloonQueueRole.Statistics => ServeStatistics(queue),
            BalloonQueueRole.Reporting => ServeReports(queue),
            // A queue whose feature was not accepted: what is in it stays there.
            _ => false,
        };
        queue.Flush();
        return more;
    }

    /// <inheritdoc/>
    protected override bool WantsDoorbell(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        return _roles[queue.Index] != BalloonQueueRole.None;
    }

    /// <summary>The request to go on with, or the next one; null when there is none.</summary>
    private DescriptorChain? Current(VirtQueue queue)
    {
        if (_held[queue.Index] is { } held)
            return held;
        if (!queue.TryTake(out DescriptorChain? chain))
            return null;
        _offsets[queue.Index] = 0;
        return _held[queue.Index] = chain;
    }

    private void Finish(VirtQueue queue, DescriptorChain chain)
    {
        _held[queue.Index] = null;
        queue.GiveBack(chain, 0);
    }

    private void Refuse(VirtQueue queue, string reason)
    {
        _held[queue.Index] = null;
        queue.Break(reason);
    }

    private bool ServePages(VirtQueue queue, bool inflate)
    {
        Span<uint> batch = stackalloc uint[PagesPerBatch];
        int pages = 0;
        int requests = 0;
        while (pages < MaximumPagesPerTurn && requests < MaximumRequestsPerTurn)
        {
            if (Current(queue) is not { } chain)
                return false;
            if (chain.WritableLength > 0 || chain.ReadableLength % sizeof(uint) != 0)
            {
                // §5.5.6.1: an array of 32-bit page numbers, for the device to read.
                Refuse(queue, "a list of pages has a part that is not to be read, or an incomplete number");
                return false;
            }
            ref ulong offset = ref _offsets[queue.Index];
            int bytes = chain.Read(offset, MemoryMarshal.AsBytes(batch));
            Span<uint> numbers = batch[..(bytes / sizeof(uint))];
            if (inflate)
                _pages!.Inflate(numbers);
            else
                _pages!.Deflate(numbers);
            pages += numbers.Length;
            offset += (ulong)bytes;
            if (offset < chain.ReadableLength)
                continue;
            Finish(queue, chain);
            requests++;
        }
        return true;
    }

    /// <summary>
    /// A message with statistics stays with the device until it wants the next one: giving it back is how it asks (§5.5.6.3).
    /// </summary>
    private bool ServeStatistics(VirtQueue queue)
    {
        Span<byte> message = stackalloc byte[BalloonStatistics.MaximumMessage];
        for (int requests = 0; requests < MaximumRequestsPerTurn; requests++)
        {
            if (!queue.HasAvailable)
                return false;
            // A driver has one message at a time; of one that has more, the last counts.
            if (_held[queue.Index] is { } former)
                Finish(queue, former);
            _statsReady = false;
            if (Current(queue) is not { } chain)
                return false;
            if (chain.WritableLength > 0)
            {
                Refuse(queue, "a message with statistics has a part that is not to be read");
                return false;
            }
            Statistics.Update(message[..chain.Read(0, message)]);
            Counters.CountStatistics();
            _statsReady = true;
            ArmStatsTimer();
        }
        return true;
    }

    private bool ServeReports(VirtQueue queue)
    {
        ulong bytes = 0;
        int requests = 0;
        while (bytes < MaximumReportPerTurn && requests < MaximumRequestsPerTurn)
        {
            if (Current(queue) is not { } chain)
                return false;
            if (chain.ReadableCount > 0)
            {
                // §5.5.6.7: the pages themselves are the buffers, for the device to write.
                Refuse(queue, "a report of free pages has a part that is not to be written");
                return false;
            }
            ref ulong offset = ref _offsets[queue.Index];
            ulong done = Discard(chain, offset, ref bytes);
            offset += done;
            if (offset < chain.WritableLength)
                continue;
            Finish(queue, chain);
            requests++;
        }
        return true;
    }

    /// <summary>Gives back what a report names, from an offset on, until the bound of the turn; gives the bytes passed.</summary>
    private ulong Discard(DescriptorChain chain, ulong offset, ref ulong bytes)
    {
        GuestMemory memory = Activation!.Memory;
        ulong passed = 0;
        foreach (GuestSegment segment in chain.Writable)
        {
            ulong skip = Math.Min(offset, segment.Length);
            offset -= skip;
            while (skip < segment.Length)
            {
                if (bytes >= MaximumReportPerTurn)
                    return passed;
                ulong part = segment.Length - skip;
                if (memory.TryGetAddress(segment.Host + (nint)skip, out ulong address))
                {
                    // Cut where the host's pages end, so that none is left because of the cut.
                    ulong host = (ulong)segment.Host + skip;
                    ulong step = Math.Max(MaximumReportPerTurn, memory.RegionAt(address)!.PageSize);
                    part = Math.Min(part, step - (host & (step - 1)));
                    if (!memory.TryDiscard(address, part, out ulong discarded))
                        Counters.CountFailure();
                    Counters.CountReported(discarded);
                }
                // A system call each, however short.
                bytes += Math.Max(part, MaximumReportPerTurn / 256);
                skip += part;
                passed += part;
            }
        }
        return passed;
    }

    private void ArmStatsTimer()
    {
        long ticks = Interlocked.Read(ref _statsInterval);
        if (_statsReady && ticks > 0)
            _statsTimer.Arm(ticks * TimeSpan.NanosecondsPerTick);
        else
            _statsTimer.Disarm();
    }

    private void AskForStatistics()
    {
        if (!_statsReady || RunningQueue(StatsQueue) is not { } queue || _held[StatsQueue] is not { } chain)
            return;
        _statsReady = false;
        Finish(queue, chain);
        queue.Flush();
    }
}
