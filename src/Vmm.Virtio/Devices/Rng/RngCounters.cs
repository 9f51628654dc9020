namespace Vmm.Virtio.Devices.Rng;

/// <summary>What an <see cref="RngDevice"/> did. Written by its queue's thread only; read by any, without tearing.</summary>
public sealed class RngCounters
{
    private long _bytes, _waits;

    /// <summary>Bytes of entropy given to the guest.</summary>
    public long Bytes => Volatile.Read(ref _bytes);

    /// <summary>Times that the source had nothing, and the guest was made to wait.</summary>
    public long Waits => Volatile.Read(ref _waits);

    /// <summary>Tells all of them.</summary>
    public void Report(ICounterSink sink)
    {
        ArgumentNullException.ThrowIfNull(sink);
        sink.Add("bytes", Bytes);
        sink.Add("source_waits", Waits);
    }

    internal void CountBytes(long count) => Volatile.Write(ref _bytes, _bytes + count);

    internal void CountWait() => Volatile.Write(ref _waits, _waits + 1);
}
