namespace Vmm.Virtio.VhostUser;

/// <summary>What happened between a device and its back-end. Any thread reads them.</summary>
public sealed class VhostUserCounters
{
    private long _connects, _losses, _refusedBackEnds, _configurationChanges, _ringErrors;
    private int _connected;

    /// <summary>Whether a back-end is there.</summary>
    public bool IsConnected => Volatile.Read(ref _connected) != 0;

    /// <summary>Back-ends that were taken.</summary>
    public long Connects => Volatile.Read(ref _connects);

    /// <summary>Connections that ended, by themselves or because the back-end broke a rule.</summary>
    public long Losses => Volatile.Read(ref _losses);

    /// <summary>Back-ends that came to replace one, and could not.</summary>
    public long RefusedBackEnds => Volatile.Read(ref _refusedBackEnds);

    /// <summary>Times that the configuration space was read again because the back-end said so.</summary>
    public long ConfigurationChanges => Volatile.Read(ref _configurationChanges);

    /// <summary>Times that the back-end signalled an error on a ring.</summary>
    public long RingErrors => Volatile.Read(ref _ringErrors);

    internal void Report(ICounterSink sink)
    {
        sink.Add("connected", IsConnected ? 1 : 0);
        sink.Add("connects", Connects);
        sink.Add("losses", Losses);
        sink.Add("refused_back_ends", RefusedBackEnds);
        sink.Add("configuration_changes", ConfigurationChanges);
        sink.Add("ring_errors", RingErrors);
    }

    internal void CountConnect()
    {
        Interlocked.Increment(ref _connects);
        Volatile.Write(ref _connected, 1);
    }

    internal void CountLoss()
    {
        Interlocked.Increment(ref _losses);
        Volatile.Write(ref _connected, 0);
    }

    internal void CountRefusedBackEnd() => Interlocked.Increment(ref _refusedBackEnds);

    internal void CountConfigurationChange() => Interlocked.Increment(ref _configurationChanges);

    internal void CountRingError() => Interlocked.Increment(ref _ringErrors);
}
