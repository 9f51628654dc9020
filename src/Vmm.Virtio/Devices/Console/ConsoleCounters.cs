namespace Vmm.Virtio.Devices.Console;

/// <summary>What a <see cref="ConsoleDevice"/> did. Each is written by one thread at a time; read by any, without tearing.</summary>
public sealed class ConsoleCounters
{
    private long _input, _output, _stalls, _emergency, _emergencyLost;

    /// <summary>Bytes that the guest was given.</summary>
    public long InputBytes => Volatile.Read(ref _input);

    /// <summary>Bytes that the guest wrote, those of emergency writes not included.</summary>
    public long OutputBytes => Volatile.Read(ref _output);

    /// <summary>Times that the guest's output had to wait because nobody took it.</summary>
    public long OutputStalls => Volatile.Read(ref _stalls);

    /// <summary>Emergency writes.</summary>
    public long EmergencyWrites => Volatile.Read(ref _emergency);

    /// <summary>Emergency writes that were lost because nobody took the output before them.</summary>
    public long EmergencyWritesLost => Volatile.Read(ref _emergencyLost);

    /// <summary>Tells all of them.</summary>
    public void Report(ICounterSink sink)
    {
        ArgumentNullException.ThrowIfNull(sink);
        sink.Add("input_bytes", InputBytes);
        sink.Add("output_bytes", OutputBytes);
        sink.Add("output_stalls", OutputStalls);
        sink.Add("emergency_writes", EmergencyWrites);
        sink.Add("emergency_writes_lost", EmergencyWritesLost);
    }

    internal void CountInput(int bytes) => Volatile.Write(ref _input, _input + bytes);

    internal void CountOutput(int bytes) => Volatile.Write(ref _output, _output + bytes);

    internal void CountStall() => Volatile.Write(ref _stalls, _stalls + 1);

    internal void CountEmergency(bool lost)
    {
        Volatile.Write(ref _emergency, _emergency + 1);
        if (lost)
            Volatile.Write(ref _emergencyLost, _emergencyLost + 1);
    }
}
