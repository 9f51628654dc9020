namespace Vmm.Virtio.Devices.Balloon;

/// <summary>What a <see cref="BalloonDevice"/> did. Written by its queues' thread only; read by any, without tearing.</summary>
public sealed class BalloonCounters
{
    private long _inflated, _pagesIn, _pagesOut, _repeatedPages, _badPages, _discarded, _reported, _failures, _statistics;

    /// <summary>Pages of 4 KiB that are in the balloon now.</summary>
    public long InflatedPages => Volatile.Read(ref _inflated);

    /// <summary>Pages that went in.</summary>
    public long PagesIn => Volatile.Read(ref _pagesIn);

    /// <summary>Pages that came out.</summary>
    public long PagesOut => Volatile.Read(ref _pagesOut);

    /// <summary>Pages that were put in while they were in, or taken out while they were out.</summary>
    public long RepeatedPages => Volatile.Read(ref _repeatedPages);

    /// <summary>Page numbers where there is no RAM; passed over.</summary>
    public long BadPages => Volatile.Read(ref _badPages);

    /// <summary>Bytes of host memory given back for inflated pages; with huge pages only when all of one is in the balloon.</summary>
    public long DiscardedBytes => Volatile.Read(ref _discarded);

    /// <summary>Bytes of host memory given back for pages reported free.</summary>
    public long ReportedBytes => Volatile.Read(ref _reported);

    /// <summary>Times that the host refused to take memory back.</summary>
    public long DiscardFailures => Volatile.Read(ref _failures);

    /// <summary>Messages with statistics.</summary>
    public long StatisticsMessages => Volatile.Read(ref _statistics);

    /// <summary>Tells all of them.</summary>
    public void Report(ICounterSink sink)
    {
        ArgumentNullException.ThrowIfNull(sink);
        sink.Add("inflated_pages", InflatedPages);
        sink.Add("pages_in", PagesIn);
        sink.Add("pages_out", PagesOut);
        sink.Add("repeated_pages", RepeatedPages);
        sink.Add("bad_pages", BadPages);
        sink.Add("discarded_bytes", DiscardedBytes);
        sink.Add("reported_bytes", ReportedBytes);
        sink.Add("discard_failures", DiscardFailures);
        sink.Add("statistics_messages", StatisticsMessages);
    }

    internal void SetInflated(long pages) => Volatile.Write(ref _inflated, pages);

    internal void CountIn(int pages) => Volatile.Write(ref _pagesIn, _pagesIn + pages);

    internal void CountOut(int pages) => Volatile.Write(ref _pagesOut, _pagesOut + pages);

    internal void CountRepeated() => Volatile.Write(ref _repeatedPages, _repeatedPages + 1);

    internal void CountBad() => Volatile.Write(ref _badPages, _badPages + 1);

    internal void CountDiscarded(ulong bytes) => Volatile.Write(ref _discarded, _discarded + (long)bytes);

    internal void CountReported(ulong bytes) => Volatile.Write(ref _reported, _reported + (long)bytes);

    internal void CountFailure() => Volatile.Write(ref _failures, _failures + 1);

    internal void CountStatistics() => Volatile.Write(ref _statistics, _statistics + 1);
}
