namespace Vmm.Core.Memory;

/// <summary>A range of guest-physical addresses (or ports). It may be empty and may reach the very top of the 64-bit space.</summary>
/// <param name="Start">The first address.</param>
/// <param name="Length">Bytes; 0 for an empty range.</param>
public readonly record struct AddressRange(ulong Start, ulong Length)
{
    /// <summary>The first address past the range; 0 for a range that reaches the top of the 64-bit space.</summary>
    public ulong End => unchecked(Start + Length);

    /// <summary>The last address in the range; meaningless for an empty one.</summary>
    public ulong Last => unchecked(Start + Length - 1);

    /// <summary>Whether the range holds nothing.</summary>
    public bool IsEmpty => Length == 0;

    /// <summary>Whether an address lies in the range.</summary>
    public bool Contains(ulong address) => address >= Start && address - Start < Length;

    /// <summary>Whether [<paramref name="start"/>, +<paramref name="length"/>) lies wholly in the range; wrap-around gives false.</summary>
    public bool Contains(ulong start, ulong length) =>
        start >= Start && start - Start <= Length && length <= Length - (start - Start);

    /// <summary>Whether two ranges share an address; an empty range shares none.</summary>
    public bool Overlaps(AddressRange other) =>
        !IsEmpty && !other.IsEmpty && Start <= other.Last && other.Start <= Last;

    /// <inheritdoc/>
    public override string ToString() => IsEmpty ? $"0x{Start:x} (empty)" : $"0x{Start:x}-0x{Last:x}";
}
