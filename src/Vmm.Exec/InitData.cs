using System.Buffers;
using System.Buffers.Binary;
using System.Text;

namespace Vmm.Exec;

/// <summary>The data of the guest's init: texts and tables at addresses that are known while its code is made, and zeroes.</summary>
internal sealed class InitData(ulong start)
{
    private readonly ArrayBufferWriter<byte> _bytes = new();
    private readonly Dictionary<string, ulong> _texts = [];
    private ulong _zeroes;

    /// <summary>Bytes of the zeroes.</summary>
    internal ulong ZeroLength => _zeroes;

    /// <summary>A text with a zero behind it; the same address for the same text.</summary>
    internal ulong Text(string text)
    {
        if (_texts.TryGetValue(text, out ulong known))
            return known;
        ulong address = Bytes([.. Encoding.UTF8.GetBytes(text), 0]);
        _texts.Add(text, address);
        return address;
    }

    /// <summary>A table of pointers to texts, with a null pointer behind them.</summary>
    internal ulong Pointers(IReadOnlyList<string> texts)
    {
        byte[] table = new byte[(texts.Count + 1) * sizeof(ulong)];
        for (int i = 0; i < texts.Count; i++)
            BinaryPrimitives.WriteUInt64LittleEndian(table.AsSpan(i * sizeof(ulong)), Text(texts[i]));
        return Bytes(table);
    }

    /// <summary>Bytes, at a multiple of 8.</summary>
    internal ulong Bytes(ReadOnlySpan<byte> bytes)
    {
        while (_bytes.WrittenCount % sizeof(ulong) != 0)
            _bytes.Write("\0"u8);
        ulong address = start + (ulong)_bytes.WrittenCount;
        _bytes.Write(bytes);
        return address;
    }

    /// <summary>Zeroes that the program may write to, at a multiple of 64.</summary>
    internal ulong Zeroes(ulong length)
    {
        ulong offset = _zeroes;
        _zeroes += (length + 63) & ~63UL;
        return ZeroStart + offset;
    }

    /// <summary>Where zeroes begin: behind all data that there can be, as the kernel takes a few megabytes of arguments at most.</summary>
    internal ulong ZeroStart => start + (256UL << 20);

    /// <summary>Where the data begin.</summary>
    internal ulong Start => start;

    /// <summary>The data.</summary>
    internal byte[] ToArray() => _bytes.WrittenSpan.ToArray();
}
