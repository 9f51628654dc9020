using System.Collections;

namespace Vmm.Machine.Configuration;

/// <summary>A list that is equal to another with equal items, as a record's members are expected to be.</summary>
/// <param name="items">Its items; not changed afterwards.</param>
public sealed class ConfigList<T>(params T[] items) : IReadOnlyList<T>, IEquatable<ConfigList<T>>
{
    /// <summary>The list without items.</summary>
    public static readonly ConfigList<T> Empty = new();

    /// <inheritdoc/>
    public int Count => items.Length;

    /// <inheritdoc/>
    public T this[int index] => items[index];

    /// <inheritdoc/>
    public bool Equals(ConfigList<T>? other) => other is not null && items.AsSpan().SequenceEqual(other.AsSpan(), EqualityComparer<T>.Default);

    /// <inheritdoc/>
    public override bool Equals(object? obj) => Equals(obj as ConfigList<T>);

    /// <inheritdoc/>
    public override int GetHashCode()
    {
        var hash = new HashCode();
        foreach (T item in items)
            hash.Add(item);
        return hash.ToHashCode();
    }

    /// <inheritdoc/>
    public IEnumerator<T> GetEnumerator() => ((IEnumerable<T>)items).GetEnumerator();

    /// <inheritdoc/>
    public override string ToString() => $"[{string.Join(", ", items)}]";

    IEnumerator IEnumerable.GetEnumerator() => items.GetEnumerator();

    private ReadOnlySpan<T> AsSpan() => items;
}
