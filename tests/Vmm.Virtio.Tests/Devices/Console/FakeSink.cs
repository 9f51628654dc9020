using Vmm.Devices;

namespace Vmm.Virtio.Tests.Devices.Console;

/// <summary>A sink of bounded room that somebody empties by hand; checks nothing, keeps nothing that was taken out.</summary>
internal sealed class FakeSink(int capacity) : IBufferedCharacterSink
{
    private readonly object _lock = new();
    private readonly Queue<byte> _bytes = new(capacity);
    private bool _starved;

    public Action? RoomAvailable { get; set; }

    public int Count
    {
        get
        {
            lock (_lock)
                return _bytes.Count;
        }
    }

    public void Write(ReadOnlySpan<byte> data) => throw new InvalidOperationException("A device on a loop must not wait.");

    public int TryWrite(ReadOnlySpan<byte> data)
    {
        lock (_lock)
        {
            int taken = Math.Min(data.Length, capacity - _bytes.Count);
            foreach (byte value in data[..taken])
                _bytes.Enqueue(value);
            _starved |= taken < data.Length;
            if (taken > 0)
                Monitor.PulseAll(_lock);
            return taken;
        }
    }

    /// <summary>Waits until there is something and takes some of it; what the device's peer would get.</summary>
    public byte[] Take(int most)
    {
        byte[] taken;
        bool tell;
        lock (_lock)
        {
            while (_bytes.Count == 0)
                Assert.True(Monitor.Wait(_lock, 30_000), "No output came.");
            taken = new byte[Math.Min(most, _bytes.Count)];
            for (int i = 0; i < taken.Length; i++)
                taken[i] = _bytes.Dequeue();
            tell = _starved;
            _starved = false;
        }
        if (tell)
            RoomAvailable?.Invoke();
        return taken;
    }

    /// <summary>Takes exactly so many.</summary>
    public byte[] TakeExactly(int count)
    {
        var all = new List<byte>(count);
        while (all.Count < count)
            all.AddRange(Take(count - all.Count));
        return [.. all];
    }
}
