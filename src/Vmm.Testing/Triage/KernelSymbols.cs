using System.Globalization;
using System.Text;
using Vmm.Core;

namespace Vmm.Testing.Triage;

/// <summary>
/// The functions of a kernel by address, from its System.map or from the symbol table of its vmlinux. Immutable but for
/// <see cref="Offset"/>; look-ups take logarithmic time and may come from several threads.
/// </summary>
public sealed class KernelSymbols
{
    private readonly ulong[] _addresses;
    private readonly int[] _names;
    private readonly byte[] _text;

    private KernelSymbols(ulong[] addresses, int[] names, byte[] text)
    {
        _addresses = addresses;
        _names = names;
        _text = text;
    }

    /// <summary>
    /// How far the kernel is from where it was linked (KASLR), in bytes modulo 2^64; <see cref="TryReadKernelOffset"/> finds it in a panic's
    /// lines. It is subtracted from an address before the look-up.
    /// </summary>
    public ulong Offset { get; set; }

    /// <summary>How many addresses of functions are known.</summary>
    public int Count
    {
        get
        {
            int count = 0;
            foreach (int name in _names)
                count += name >= 0 ? 1 : 0;
            return count;
        }
    }

    /// <summary>Reads a System.map (lines with LF or CRLF), or the symbol table of an ELF file (vmlinux; 64-bit, little-endian).</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="VmmException">It is missing, cannot be read, is neither, or has no function.</exception>
    public static KernelSymbols Load(string path)
    {
        using var file = SymbolFile.Open(path);
        var builder = new SymbolTableBuilder();
        if (file.IsElf())
            ElfSymbolTable.Read(file, builder);
        else
            SystemMap.Read(file, builder);
        (ulong[] addresses, int[] names, byte[] text) = builder.Build();
        var symbols = new KernelSymbols(addresses, names, text);
        if (symbols.Count == 0)
            throw VmmException.Configuration($"The symbol file {path} names no function; give the kernel's System.map, or its vmlinux with a symbol table.");
        return symbols;
    }

    /// <summary>Finds the function that an address is in: the nearest symbol of code at or below it, within the kernel's code.</summary>
    /// <param name="address">As a vCPU's instruction pointer has it.</param>
    /// <param name="name">The function.</param>
    /// <param name="offset">Bytes from its start.</param>
    public bool TryFind(ulong address, out string name, out ulong offset)
    {
        address = unchecked(address - Offset);
        int index = Array.BinarySearch(_addresses, address);
        if (index < 0)
            index = ~index - 1;
        if (index < 0 || _names[index] < 0)
        {
            name = "";
            offset = 0;
            return false;
        }

        int start = _names[index];
        name = Encoding.UTF8.GetString(_text, start, Array.IndexOf(_text, (byte)0, start) - start);
        offset = address - _addresses[index];
        return true;
    }

    /// <summary>
    /// Finds what a panicking kernel says of where it was: <c>Kernel Offset: 0x1a000000 from 0xffffffff81000000 (...)</c>, or <c>Kernel Offset:
    /// disabled</c>, which is 0.
    /// </summary>
    /// <param name="line">A line of the console.</param>
    /// <param name="offset">What to set <see cref="Offset"/> to.</param>
    public static bool TryReadKernelOffset(string line, out ulong offset)
    {
        ArgumentNullException.ThrowIfNull(line);
        offset = 0;
        ReadOnlySpan<char> rest = LinuxTitle.After(line, "Kernel Offset: ");
        if (rest.StartsWith("disabled"))
            return true;
        if (!rest.StartsWith("0x"))
            return false;
        int end = LinuxLines.SkipHex(rest, 2);
        return ulong.TryParse(rest[2..end], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out offset)
            && (end == rest.Length || rest[end] is ' ' or '\r');
    }
}
