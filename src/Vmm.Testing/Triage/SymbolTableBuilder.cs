namespace Vmm.Testing.Triage;

/// <summary>Collects symbols and makes the arrays that they are looked up in.</summary>
internal sealed class SymbolTableBuilder
{
    /// <summary>A kernel with everything in it has under half a million.</summary>
    internal const int MaximumSymbols = 4 * 1024 * 1024;

    /// <summary>The most bytes of all names: three times what the largest kernels have.</summary>
    internal const int MaximumNameBytes = 128 * 1024 * 1024;

    /// <summary>The longest name, as the kernel's own table has it (KSYM_NAME_LEN).</summary>
    internal const int MaximumName = 512;

    private readonly List<(ulong Address, int Rank, int Name)> _symbols = [];
    private byte[] _text = new byte[64 * 1024];
    private int _textLength;

    /// <summary>Whether there is room for another one.</summary>
    public bool IsFull => _symbols.Count >= MaximumSymbols || _textLength > MaximumNameBytes - MaximumName - 1;

    /// <summary>Adds a function.</summary>
    /// <param name="address">Where it starts.</param>
    /// <param name="rank">Of several at one address the one with the highest rank is taken.</param>
    /// <param name="name">UTF-8; a longer one than <see cref="MaximumName"/> is cut.</param>
    public void AddFunction(ulong address, int rank, ReadOnlySpan<byte> name)
    {
        if (IsFull || name.IsEmpty)
            return;
        name = name[..Math.Min(name.Length, MaximumName)];
        if (_text.Length - _textLength < name.Length + 1)
            Array.Resize(ref _text, _text.Length * 2);
        _symbols.Add((address, (rank * 16) - Underscores(name), _textLength));
        name.CopyTo(_text.AsSpan(_textLength));
        _textLength += name.Length;
        _text[_textLength++] = 0;
    }

    /// <summary>Says that from an address on there is no code, until the next function.</summary>
    public void AddEnd(ulong address)
    {
        if (!IsFull)
            _symbols.Add((address, -1000, -1));
    }

    /// <summary>The addresses, rising, each once; where the names of the functions begin, -1 where there is none; the names, each with a NUL.</summary>
    public (ulong[] Addresses, int[] Names, byte[] Text) Build()
    {
        // Highest rank first, then the order in the file: the outcome does not depend on how the sort treats equals.
        _symbols.Sort(static (a, b) => a.Address != b.Address ? a.Address.CompareTo(b.Address) : a.Rank != b.Rank ? b.Rank.CompareTo(a.Rank) : a.Name.CompareTo(b.Name));
        int count = 0;
        for (int i = 0; i < _symbols.Count; i++)
        {
            if (IsKept(i))
                count++;
        }

        var addresses = new ulong[count];
        var names = new int[count];
        for (int i = 0, kept = 0; i < _symbols.Count; i++)
        {
            if (!IsKept(i))
                continue;
            addresses[kept] = _symbols[i].Address;
            names[kept++] = _symbols[i].Name;
        }

        return (addresses, names, _text.AsSpan(0, _textLength).ToArray());
    }

    private bool IsKept(int index) => index == 0 || _symbols[index].Address != _symbols[index - 1].Address;

    private static int Underscores(ReadOnlySpan<byte> name)
    {
        int count = 0;
        while (count < name.Length && count < 8 && name[count] == (byte)'_')
            count++;
        return count;
    }
}
