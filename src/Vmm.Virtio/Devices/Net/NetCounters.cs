namespace Vmm.Virtio.Devices.Net;

/// <summary>What one pair of queues did. Each is written by the pair's own thread only; read by any, without tearing.</summary>
internal sealed class NetCounters
{
    private long _rxFrames, _rxBytes, _rxDropped, _rxFiltered, _rxErrors;
    private long _txFrames, _txBytes, _txDropped, _txMalformed;

    /// <summary>Frames given to the driver.</summary>
    public long RxFrames => Volatile.Read(ref _rxFrames);

    /// <summary>Their bytes, without the header.</summary>
    public long RxBytes => Volatile.Read(ref _rxBytes);

    /// <summary>Frames lost: the driver's buffer was too small, its offloads had changed, or the link was down.</summary>
    public long RxDropped => Volatile.Read(ref _rxDropped);

    /// <summary>Frames that the driver's filter did not want.</summary>
    public long RxFiltered => Volatile.Read(ref _rxFiltered);

    /// <summary>Reads that the back-end refused.</summary>
    public long RxErrors => Volatile.Read(ref _rxErrors);

    /// <summary>Frames sent.</summary>
    public long TxFrames => Volatile.Read(ref _txFrames);

    /// <summary>Their bytes, without the header.</summary>
    public long TxBytes => Volatile.Read(ref _txBytes);

    /// <summary>Frames that the back-end refused, or that were sent while the link was down.</summary>
    public long TxDropped => Volatile.Read(ref _txDropped);

    /// <summary>Buffers that hold no frame: too short or too long.</summary>
    public long TxMalformed => Volatile.Read(ref _txMalformed);

    /// <summary>Tells the sums of some pairs.</summary>
    public static void Report(ReadOnlySpan<NetCounters> pairs, ICounterSink sink)
    {
        var sum = new NetCounters();
        foreach (NetCounters pair in pairs)
        {
            sum._rxFrames += pair.RxFrames;
            sum._rxBytes += pair.RxBytes;
            sum._rxDropped += pair.RxDropped;
            sum._rxFiltered += pair.RxFiltered;
            sum._rxErrors += pair.RxErrors;
            sum._txFrames += pair.TxFrames;
            sum._txBytes += pair.TxBytes;
            sum._txDropped += pair.TxDropped;
            sum._txMalformed += pair.TxMalformed;
        }
        sink.Add("rx_frames", sum._rxFrames);
        sink.Add("rx_bytes", sum._rxBytes);
        sink.Add("rx_dropped", sum._rxDropped);
        sink.Add("rx_filtered", sum._rxFiltered);
        sink.Add("rx_errors", sum._rxErrors);
        sink.Add("tx_frames", sum._txFrames);
        sink.Add("tx_bytes", sum._txBytes);
        sink.Add("tx_dropped", sum._txDropped);
        sink.Add("tx_malformed", sum._txMalformed);
    }

    public void CountReceived(long bytes)
    {
        Volatile.Write(ref _rxFrames, _rxFrames + 1);
        Volatile.Write(ref _rxBytes, _rxBytes + bytes);
    }

    public void CountReceiveDrop() => Volatile.Write(ref _rxDropped, _rxDropped + 1);

    public void CountFiltered() => Volatile.Write(ref _rxFiltered, _rxFiltered + 1);

    public void CountReceiveError() => Volatile.Write(ref _rxErrors, _rxErrors + 1);

    public void CountSent(long bytes)
    {
        Volatile.Write(ref _txFrames, _txFrames + 1);
        Volatile.Write(ref _txBytes, _txBytes + bytes);
    }

    public void CountSendDrop() => Volatile.Write(ref _txDropped, _txDropped + 1);

    public void CountMalformed() => Volatile.Write(ref _txMalformed, _txMalformed + 1);
}
