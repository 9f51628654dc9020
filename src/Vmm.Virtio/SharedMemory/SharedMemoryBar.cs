using Vmm.Core.Bus;

namespace Vmm.Virtio.SharedMemory;

/// <summary>A BAR with regions in it: passes accesses to the region that they lie in. Between regions there are ones, and writes are dropped.</summary>
internal sealed class SharedMemoryBar : IBusDevice
{
    private readonly ulong[] _starts;
    private readonly ulong[] _lengths;
    private readonly IBusDevice[] _regions;

    /// <summary>Makes the BAR.</summary>
    /// <param name="regions">What is in it.</param>
    /// <param name="starts">The offset of each, ascending.</param>
    internal SharedMemoryBar(IReadOnlyList<SharedMemoryRegion> regions, ulong[] starts)
    {
        _starts = starts;
        _lengths = [.. regions.Select(region => region.Length)];
        _regions = [.. regions.Select(region => region.Behind)];
    }

    public void Read(ulong offset, Span<byte> data)
    {
        int at = Find(offset, data.Length);
        if (at < 0)
            data.Fill(0xFF);
        else
            _regions[at].Read(offset - _starts[at], data);
    }

    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        int at = Find(offset, data.Length);
        if (at >= 0)
            _regions[at].Write(offset - _starts[at], data);
    }

    private int Find(ulong offset, int length)
    {
        int at = Array.BinarySearch(_starts, offset);
        if (at < 0)
            at = ~at - 1;
        return at >= 0 && offset - _starts[at] < _lengths[at] && (ulong)length <= _lengths[at] - (offset - _starts[at]) ? at : -1;
    }
}
