namespace Vmm.Virtio.SharedMemory;

/// <summary>
/// The mappings of a window by their offsets, none of which overlap: a treap, whose depth is the logarithm of its size whatever a back-end
/// maps in whatever order, as the priorities that balance it are random and unknown to it.
/// </summary>
internal sealed class MappingTree
{
    private readonly Random _random = new();
    private WindowMapping? _root;

    /// <summary>How many there are.</summary>
    internal int Count { get; private set; }

    /// <summary>The mapping with the highest offset that is at most this one; null where there is none.</summary>
    internal WindowMapping? AtOrBelow(ulong offset)
    {
        WindowMapping? best = null;
        for (WindowMapping? node = _root; node != null;)
        {
            if (node.Offset <= offset)
            {
                best = node;
                node = node.Right;
            }
            else
            {
                node = node.Left;
            }
        }
        return best;
    }

    /// <summary>The mapping with the lowest offset that is at least this one; null where there is none.</summary>
    internal WindowMapping? AtOrAbove(ulong offset)
    {
        WindowMapping? best = null;
        for (WindowMapping? node = _root; node != null;)
        {
            if (node.Offset >= offset)
            {
                best = node;
                node = node.Left;
            }
            else
            {
                node = node.Right;
            }
        }
        return best;
    }

    /// <summary>A mapping that shares a byte with [<paramref name="start"/>, <paramref name="end"/>); null where none does.</summary>
    internal WindowMapping? Overlapping(ulong start, ulong end) =>
        end > start && AtOrBelow(end - 1) is { } last && last.End > start ? last : null;

    /// <summary>Adds one that overlaps none.</summary>
    internal void Add(WindowMapping mapping)
    {
        mapping.Priority = (uint)_random.Next();
        (WindowMapping? below, WindowMapping? above) = Split(_root, mapping.Offset);
        _root = Merge(Merge(below, mapping), above);
        Count++;
    }

    /// <summary>Takes one out that is in it.</summary>
    internal void Remove(WindowMapping mapping)
    {
        (WindowMapping? below, WindowMapping? rest) = Split(_root, mapping.Offset);
        (_, WindowMapping? above) = Split(rest, mapping.Offset + 1);
        _root = Merge(below, above);
        mapping.Left = mapping.Right = null;
        Count--;
    }

    /// <summary>Takes all out.</summary>
    internal void Clear()
    {
        _root = null;
        Count = 0;
    }

    /// <summary>Calls for each, from the lowest offset up or from the highest down.</summary>
    internal void ForEach<T>(bool descending, T state, Action<WindowMapping, T> action) => Visit(_root, descending, state, action);

    private static void Visit<T>(WindowMapping? node, bool descending, T state, Action<WindowMapping, T> action)
    {
        if (node == null)
            return;
        Visit(descending ? node.Right : node.Left, descending, state, action);
        action(node, state);
        Visit(descending ? node.Left : node.Right, descending, state, action);
    }

    /// <summary>Those below an offset, and the others.</summary>
    private static (WindowMapping? Below, WindowMapping? Others) Split(WindowMapping? node, ulong offset)
    {
        if (node == null)
            return (null, null);
        if (node.Offset < offset)
        {
            (WindowMapping? below, WindowMapping? rest) = Split(node.Right, offset);
            node.Right = below;
            return (node, rest);
        }
        else
        {
            (WindowMapping? below, WindowMapping? rest) = Split(node.Left, offset);
            node.Left = rest;
            return (below, node);
        }
    }

    /// <summary>One tree of two, all of whose offsets are below those of the other.</summary>
    private static WindowMapping? Merge(WindowMapping? low, WindowMapping? high)
    {
        if (low == null)
            return high;
        if (high == null)
            return low;
        if (low.Priority > high.Priority)
        {
            low.Right = Merge(low.Right, high);
            return low;
        }
        high.Left = Merge(low, high.Left);
        return high;
    }
}
