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
        _symbols.Sort(Compare);
        var addresses = new ulong[_symbols.Count];
        var names = new int[_symbols.Count];
        int count = 0;
        foreach ((ulong address, _, int name) in _symbols)
        {
            // The first at its address counts; an end after an end says nothing.
            if (count > 0 && (addresses[count - 1] == address || (name < 0 && names[count - 1] < 0)))
                continue;
            addresses[count] = address;
            names[count++] = name;
        }

        return (addresses[..count], names[..count], _text[.._textLength]);
    }

    /// <summary>By address; at one address the highest rank first, then by name: the order in the file does not matter.</summary>
    private int Compare((ulong Address, int Rank, int Name) a, (ulong Address, int Rank, int Name) b)
    {
        int order = a.Address.CompareTo(b.Address);
        if (order == 0)
            order = b.Rank.CompareTo(a.Rank);
        return order != 0 || a.Name < 0 || b.Name < 0 ? order : NameAt(a.Name).SequenceCompareTo(NameAt(b.Name));
    }

    private ReadOnlySpan<byte> NameAt(int start)
    {
        ReadOnlySpan<byte> rest = _text.AsSpan(start);
        return rest[..rest.IndexOf((byte)0)];
    }

    private static int Underscores(ReadOnlySpan<byte> name)
    {
        int count = 0;
        while (count < name.Length && count < 8 && name[count] == (byte)'_')
            count++;
        return count;
    }
}
