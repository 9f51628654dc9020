namespace Vmm.Virtio;

/// <summary>Takes counters, one call each.</summary>
public interface ICounterSink
{
    /// <summary>Takes one.</summary>
    /// <param name="name">Lower case with underscores: <c>read_bytes</c>, <c>queue0_kicks</c>.</param>
    /// <param name="value">Its value now; counts up from 0 unless documented as a level.</param>
    void Add(string name, long value);
}
