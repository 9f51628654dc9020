namespace Vmm.Virtio.Queues;

/// <summary>What one queue did. Written by its own thread only; read by any, without tearing.</summary>
public sealed class QueueCounters
{
    private readonly string _kicksName, _interruptsName, _requestsName;
    private long _kicks, _interrupts, _requests;

    /// <summary>Makes the counters of a queue; they go on across resets of the device.</summary>
    public QueueCounters(int index)
    {
        _kicksName = $"queue{index}_kicks";
        _interruptsName = $"queue{index}_interrupts";
        _requestsName = $"queue{index}_requests";
    }

    /// <summary>Doorbells served; several rings of one may have been served at once.</summary>
    public long Kicks => Volatile.Read(ref _kicks);

    /// <summary>Interrupts sent to the driver.</summary>
    public long Interrupts => Volatile.Read(ref _interrupts);

    /// <summary>Buffers given back to the driver.</summary>
    public long Requests => Volatile.Read(ref _requests);

    /// <summary>Tells all of them.</summary>
    public void Report(ICounterSink sink)
    {
        ArgumentNullException.ThrowIfNull(sink);
        sink.Add(_kicksName, Kicks);
        sink.Add(_interruptsName, Interrupts);
        sink.Add(_requestsName, Requests);
    }

    internal void CountKick() => Volatile.Write(ref _kicks, _kicks + 1);

    internal void CountInterrupt() => Volatile.Write(ref _interrupts, _interrupts + 1);

    internal void CountRequest() => Volatile.Write(ref _requests, _requests + 1);
}
