namespace Vmm.Virtio.Tests.Devices;

/// <summary>The counters that a device tells.</summary>
internal sealed class RecordedCounters : ICounterSink
{
    private readonly Dictionary<string, long> _values = [];

    /// <summary>Those of a device now.</summary>
    public static RecordedCounters Of(VirtioDevice device)
    {
        var counters = new RecordedCounters();
        device.ReportCounters(counters);
        return counters;
    }

    public IReadOnlyCollection<string> Names => _values.Keys;

    public long this[string name] => _values[name];

    /// <summary>A name that comes twice is a defect.</summary>
    public void Add(string name, long value) => _values.Add(name, value);
}
