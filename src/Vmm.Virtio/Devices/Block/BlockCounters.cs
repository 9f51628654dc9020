namespace Vmm.Virtio.Devices.Block;

/// <summary>What the requests of one queue did. Written by the queue's thread only, so that queues do not share a cache line's traffic.</summary>
internal sealed class BlockCounters
{
    private long _reads, _writes, _flushes, _discards, _writeZeroes, _readBytes, _writtenBytes;
    private long _hostErrors, _badRequests, _bounced, _continued, _throttled;

    public long HostErrors => Volatile.Read(ref _hostErrors);

    public void CountRead(ulong bytes)
    {
        Add(ref _reads, 1);
        Add(ref _readBytes, (long)bytes);
    }

    public void CountWrite(ulong bytes)
    {
        Add(ref _writes, 1);
        Add(ref _writtenBytes, (long)bytes);
    }

    public void CountFlush() => Add(ref _flushes, 1);

    public void CountDiscard() => Add(ref _discards, 1);

    public void CountWriteZeroes() => Add(ref _writeZeroes, 1);

    public void CountHostError() => Add(ref _hostErrors, 1);

    public void CountBadRequest() => Add(ref _badRequests, 1);

    public void CountBounce() => Add(ref _bounced, 1);

    public void CountContinuation() => Add(ref _continued, 1);

    public void CountThrottle() => Add(ref _throttled, 1);

    /// <summary>Tells the sums over all queues of a device.</summary>
    public static void Report(BlockCounters[] all, ICounterSink sink)
    {
        sink.Add("reads", Sum(all, c => Volatile.Read(ref c._reads)));
        sink.Add("read_bytes", Sum(all, c => Volatile.Read(ref c._readBytes)));
        sink.Add("writes", Sum(all, c => Volatile.Read(ref c._writes)));
        sink.Add("written_bytes", Sum(all, c => Volatile.Read(ref c._writtenBytes)));
        sink.Add("flushes", Sum(all, c => Volatile.Read(ref c._flushes)));
        sink.Add("discards", Sum(all, c => Volatile.Read(ref c._discards)));
        sink.Add("write_zeroes", Sum(all, c => Volatile.Read(ref c._writeZeroes)));
        sink.Add("host_errors", Sum(all, c => c.HostErrors));
        sink.Add("bad_requests", Sum(all, c => Volatile.Read(ref c._badRequests)));
        sink.Add("bounced", Sum(all, c => Volatile.Read(ref c._bounced)));
        sink.Add("continued", Sum(all, c => Volatile.Read(ref c._continued)));
        sink.Add("throttled", Sum(all, c => Volatile.Read(ref c._throttled)));
    }

    private static long Sum(BlockCounters[] all, Func<BlockCounters, long> counter)
    {
        long sum = 0;
        foreach (BlockCounters counters in all)
            sum += counter(counters);
        return sum;
    }

    private static void Add(ref long counter, long value) => Volatile.Write(ref counter, counter + value);
}
