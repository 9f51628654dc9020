namespace Vmm.Virtio.Devices.Pmem;

/// <summary>What a <see cref="PmemDevice"/> did. Written by its queue's thread only; read by any, without tearing.</summary>
public sealed class PmemCounters
{
    private long _requests, _syncs, _failures, _malformed;

    /// <summary>Flushes that the driver asked for and were answered.</summary>
    public long Flushes => Volatile.Read(ref _requests);

    /// <summary>Flushes of the file: one serves all requests that were there when it began.</summary>
    public long FileFlushes => Volatile.Read(ref _syncs);

    /// <summary>Flushes of the file that failed.</summary>
    public long FileErrors => Volatile.Read(ref _failures);

    /// <summary>Requests that are none: too short, or of an unknown type.</summary>
    public long Malformed => Volatile.Read(ref _malformed);

    /// <summary>Tells all of them.</summary>
    public void Report(ICounterSink sink)
    {
        ArgumentNullException.ThrowIfNull(sink);
        sink.Add("flushes", Flushes);
        sink.Add("file_flushes", FileFlushes);
        sink.Add("file_errors", FileErrors);
        sink.Add("malformed", Malformed);
    }

    internal void CountFlush() => Volatile.Write(ref _requests, _requests + 1);

    internal void CountFileFlush(bool succeeded)
    {
        Volatile.Write(ref _syncs, _syncs + 1);
        if (!succeeded)
            Volatile.Write(ref _failures, _failures + 1);
    }

    internal void CountMalformed() => Volatile.Write(ref _malformed, _malformed + 1);
}
