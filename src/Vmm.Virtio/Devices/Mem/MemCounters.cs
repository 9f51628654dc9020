namespace Vmm.Virtio.Devices.Mem;

/// <summary>What a <see cref="MemDevice"/> did. Written by its queue's thread only; read by any, without tearing.</summary>
public sealed class MemCounters
{
    private long _plugged, _unplugged, _refused, _errors;

    /// <summary>Bytes that were plugged, over time.</summary>
    public long PluggedBytes => Volatile.Read(ref _plugged);

    /// <summary>Bytes that were unplugged and given back to the host, over time.</summary>
    public long UnpluggedBytes => Volatile.Read(ref _unplugged);

    /// <summary>Requests that were answered with NACK or BUSY.</summary>
    public long Refused => Volatile.Read(ref _refused);

    /// <summary>Requests that were answered with ERROR.</summary>
    public long Errors => Volatile.Read(ref _errors);

    /// <summary>Tells all of them.</summary>
    public void Report(ICounterSink sink)
    {
        ArgumentNullException.ThrowIfNull(sink);
        sink.Add("plugged_bytes", PluggedBytes);
        sink.Add("unplugged_bytes", UnpluggedBytes);
        sink.Add("refused", Refused);
        sink.Add("errors", Errors);
    }

    internal void CountPlug(ulong bytes) => Volatile.Write(ref _plugged, _plugged + (long)bytes);

    internal void CountUnplug(ulong bytes) => Volatile.Write(ref _unplugged, _unplugged + (long)bytes);

    internal void CountResponse(MemResponseType type)
    {
        if (type is MemResponseType.Nack or MemResponseType.Busy)
            Volatile.Write(ref _refused, _refused + 1);
        else if (type == MemResponseType.Error)
            Volatile.Write(ref _errors, _errors + 1);
    }
}
