using System.Globalization;
using System.Text;

namespace Vmm.Testing.Triage;

/// <summary>Reads System.map, as nm(1) writes it: <c>ffffffff81000000 T _stext</c>. /proc/kallsyms has the same form.</summary>
internal static class SystemMap
{
    private const int BlockSize = 64 * 1024;

    /// <summary>The address, the type, and the longest name, with room for a module's name.</summary>
    private const int MaximumLine = 2048;

    /// <summary>What marks the end of code and is itself listed as code.</summary>
    private static readonly byte[][] s_ends = ["_etext"u8.ToArray(), "_einittext"u8.ToArray(), "__exittext_end"u8.ToArray(), "_end"u8.ToArray()];

    /// <summary>Reads all lines.</summary>
    /// <exception cref="Vmm.Core.VmmException">A line is of another form.</exception>
    public static void Read(SymbolFile file, SymbolTableBuilder builder)
    {
        byte[] block = new byte[BlockSize];
        int kept = 0;
        int number = 0;
        for (ulong offset = 0; !builder.IsFull;)
        {
            int read = file.Read(offset, block.AsSpan(kept));
            offset += (ulong)read;
            int end = kept + read;
            int start = 0;
            while (start < end)
            {
                int length = block.AsSpan(start, end - start).IndexOf((byte)'\n');
                bool isLast = length < 0 && read == 0;
                if (length < 0 && !isLast)
                    break;
                int lineEnd = isLast ? end : start + length;
                number++;
                ReadOnlySpan<byte> line = block.AsSpan(start, lineEnd - start).TrimEnd((byte)'\r');
                if (!TryLine(line, builder))
                    throw file.Bad($"is neither an ELF file nor a System.map: line {number} is not an address, a type and a name");
                start = lineEnd + 1;
            }

            kept = Math.Max(0, end - start);
            if (kept > MaximumLine)
                throw file.Bad($"is neither an ELF file nor a System.map: line {number + 1} is longer than {MaximumLine} bytes");
            if (read == 0)
                return;
            block.AsSpan(start, kept).CopyTo(block);
        }
    }

    private static bool TryLine(ReadOnlySpan<byte> line, SymbolTableBuilder builder)
    {
        if (line.IsEmpty)
            return true;
        int blank = line.IndexOf((byte)' ');
        if (line.Length > MaximumLine || blank is < 8 or > 16 || line.Length < blank + 4 || line[blank + 2] != (byte)' ')
        {
            // nm(1) writes undefined symbols with blanks for the address.
            return line.StartsWith("        "u8) && line.Length <= MaximumLine && line.TrimStart((byte)' ').Length > 2;
        }

        if (!ulong.TryParse(line[..blank], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ulong address))
            return false;
        byte type = line[blank + 1];
        if (!char.IsAsciiLetter((char)type) && type is not ((byte)'?' or (byte)'-'))
            return false;
        ReadOnlySpan<byte> name = line[(blank + 3)..];
        foreach (byte b in name)
        {
            if (b < (byte)' ')
                return b == (byte)'\t'; // The module's name follows: its code is not the kernel's.
        }

        Add(builder, address, type, name);
        return true;
    }

    private static void Add(SymbolTableBuilder builder, ulong address, byte type, ReadOnlySpan<byte> name)
    {
        if (IsEnd(name))
        {
            builder.AddEnd(address);
            return;
        }

        switch (type)
        {
            case (byte)'T':
                builder.AddFunction(address, 3, name);
                break;
            case (byte)'t':
                builder.AddFunction(address, 2, name);
                break;
            case (byte)'W' or (byte)'w' or (byte)'i':
                builder.AddFunction(address, 1, name);
                break;
            case (byte)'A' or (byte)'a' or (byte)'U' or (byte)'N' or (byte)'n':
                break; // Numbers, not places.
            default:
                builder.AddEnd(address);
                break;
        }
    }

    private static bool IsEnd(ReadOnlySpan<byte> name)
    {
        foreach (byte[] end in s_ends)
        {
            if (name.SequenceEqual(end))
                return true;
        }

        return false;
    }
}
