namespace Vmm.Virtio.VhostUser;

/// <summary>
/// What a driver wrote into the configuration space and the back-end has not been told: one after the other, as they may be commands. Who
/// writes faster than the back-end reads loses the order beyond a number of them, and of two to the same byte the first. Under the lock of
/// the configuration space.
/// </summary>
internal sealed class ConfigurationWrites
{
    /// <summary>So many are kept in their order.</summary>
    internal const int Most = 64;

    private readonly Queue<(int Offset, byte[] Data)> _inOrder = new(Most);

    // The bytes of those beyond; all of them are later than those in order.
    private readonly bool[] _later = new bool[Protocol.ConfigHead.MaximumData];
    private int _laterCount;

    /// <summary>Whether there are none.</summary>
    internal bool IsEmpty => _inOrder.Count == 0 && _laterCount == 0;

    /// <summary>The driver wrote something, which is in the space by now.</summary>
    internal void Add(int offset, ReadOnlySpan<byte> data)
    {
        if (_inOrder.Count < Most && _laterCount == 0)
        {
            _inOrder.Enqueue((offset, data.ToArray()));
            return;
        }
        for (int i = offset; i < offset + data.Length; i++)
            Mark(i, true);
    }

    /// <summary>Takes the next one out, with the bytes that are to be told.</summary>
    /// <param name="space">The configuration space.</param>
    /// <param name="offset">Where they are.</param>
    /// <param name="data">At least one.</param>
    internal bool TryTake(ReadOnlySpan<byte> space, out int offset, out byte[] data)
    {
        (offset, data) = (0, []);
        if (_inOrder.TryDequeue(out (int Offset, byte[] Data) next))
        {
            (offset, data) = next;
            return true;
        }
        if (_laterCount == 0)
            return false;
        offset = Array.IndexOf(_later, true);
        int end = offset;
        while (end < _later.Length && _later[end])
            Mark(end++, false);
        data = space[offset..end].ToArray();
        return true;
    }

    /// <summary>Keeps what they wrote, which is younger than what was read.</summary>
    internal void Keep(ReadOnlySpan<byte> space, Span<byte> read)
    {
        foreach ((int offset, byte[] data) in _inOrder)
            space.Slice(offset, data.Length).CopyTo(read[offset..]);
        for (int i = 0; _laterCount > 0 && i < read.Length; i++)
        {
            if (_later[i])
                read[i] = space[i];
        }
    }

    /// <summary>There is no driver any more who wrote them.</summary>
    internal void Clear()
    {
        _inOrder.Clear();
        Array.Clear(_later);
        _laterCount = 0;
    }

    private void Mark(int at, bool later)
    {
        _laterCount += (later ? 1 : 0) - (_later[at] ? 1 : 0);
        _later[at] = later;
    }
}
