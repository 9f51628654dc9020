using System.Buffers.Binary;

namespace Vmm.Testing.Triage;

/// <summary>Reads the functions of an ELF file's symbol table (System V gABI chapter 4, "Sections" and "Symbol Table").</summary>
internal static class ElfSymbolTable
{
    private const int HeaderSize = 64;
    private const int SectionSize = 64;
    private const int SymbolSize = 24;

    /// <summary>A vmlinux with debugging information has about 70; one made with a section for each function may have very many.</summary>
    private const int MaximumSections = 1024 * 1024;

    private const int BlockSymbols = 4096;
    private const byte Class64 = 2;
    private const byte LittleEndian = 1;
    private const uint SectionSymbols = 2;
    private const uint SectionStrings = 3;
    private const ulong FlagExecutable = 4;
    private const ushort IndexReserved = 0xFF00;
    private const int BindingGlobal = 1;
    private const int BindingWeak = 2;
    private const int TypeNone = 0;
    private const int TypeFunction = 2;

    private readonly record struct Section(uint Type, ulong Flags, ulong Address, ulong Offset, ulong Size, uint Link, ulong EntrySize);

    /// <summary>Reads the table.</summary>
    /// <exception cref="Vmm.Core.VmmException">The file is of another kind, says what cannot be, or has no symbol table.</exception>
    public static void Read(SymbolFile file, SymbolTableBuilder builder)
    {
        Section[] sections = ReadSections(file);
        int index = Array.FindIndex(sections, section => section.Type == SectionSymbols);
        if (index < 0)
            throw file.Bad("is an ELF file without a symbol table (it is stripped)");
        Section table = sections[index];
        if (table.EntrySize != SymbolSize || table.Size % SymbolSize != 0 || table.Link >= sections.Length || sections[table.Link].Type != SectionStrings)
            throw file.Bad("has a symbol table that is damaged");
        if (table.Size / SymbolSize > SymbolTableBuilder.MaximumSymbols || sections[table.Link].Size > SymbolTableBuilder.MaximumNameBytes)
            throw file.Bad($"has more symbols than a kernel's ({table.Size / SymbolSize})");

        byte[] names = new byte[Checked(file, sections[table.Link])];
        file.ReadAll(sections[table.Link].Offset, names);
        foreach (Section section in sections)
        {
            if ((section.Flags & FlagExecutable) != 0)
                builder.AddEnd(unchecked(section.Address + section.Size));
        }

        ulong end = Checked(file, table);
        byte[] block = new byte[BlockSymbols * SymbolSize];
        for (ulong done = 0; done < end;)
        {
            Span<byte> part = block.AsSpan(0, (int)Math.Min((ulong)block.Length, end - done));
            file.ReadAll(table.Offset + done, part);
            for (int i = 0; i < part.Length; i += SymbolSize)
                Add(builder, sections, names, part.Slice(i, SymbolSize));
            done += (ulong)part.Length;
        }
    }

    private static Section[] ReadSections(SymbolFile file)
    {
        Span<byte> header = stackalloc byte[HeaderSize];
        file.ReadAll(0, header);
        if (header[4] != Class64 || header[5] != LittleEndian)
            throw file.Bad("is an ELF file, but not a 64-bit little-endian one");
        ulong offset = BinaryPrimitives.ReadUInt64LittleEndian(header[40..]);
        int size = BinaryPrimitives.ReadUInt16LittleEndian(header[58..]);
        ulong count = BinaryPrimitives.ReadUInt16LittleEndian(header[60..]);
        if (offset == 0)
            throw file.Bad("is an ELF file without sections, and so without a symbol table");
        if (size != SectionSize)
            throw file.Bad($"has section headers of {size} bytes instead of {SectionSize}");
        Span<byte> one = stackalloc byte[SectionSize];
        if (count == 0)
        {
            // With very many sections their number is in the first one's size.
            file.ReadAll(offset, one);
            count = Parse(one).Size;
        }

        if (count > MaximumSections || offset > file.Length || count * SectionSize > file.Length - offset)
            throw file.Bad($"has {count} section headers that do not fit in the file");
        var sections = new Section[count];
        for (int i = 0; i < sections.Length; i++)
        {
            file.ReadAll(offset + ((ulong)i * SectionSize), one);
            sections[i] = Parse(one);
        }

        return sections;
    }

    private static Section Parse(ReadOnlySpan<byte> header) => new(
        BinaryPrimitives.ReadUInt32LittleEndian(header[4..]),
        BinaryPrimitives.ReadUInt64LittleEndian(header[8..]),
        BinaryPrimitives.ReadUInt64LittleEndian(header[16..]),
        BinaryPrimitives.ReadUInt64LittleEndian(header[24..]),
        BinaryPrimitives.ReadUInt64LittleEndian(header[32..]),
        BinaryPrimitives.ReadUInt32LittleEndian(header[40..]),
        BinaryPrimitives.ReadUInt64LittleEndian(header[56..]));

    private static ulong Checked(SymbolFile file, Section section)
    {
        if (section.Offset > file.Length || section.Size > file.Length - section.Offset)
            throw file.Bad("has a symbol table that ends after the file does");
        return section.Size;
    }

    private static void Add(SymbolTableBuilder builder, Section[] sections, byte[] names, ReadOnlySpan<byte> symbol)
    {
        uint name = BinaryPrimitives.ReadUInt32LittleEndian(symbol);
        int type = symbol[4] & 0xF;
        int binding = symbol[4] >> 4;
        int section = BinaryPrimitives.ReadUInt16LittleEndian(symbol[6..]);
        ulong value = BinaryPrimitives.ReadUInt64LittleEndian(symbol[8..]);
        ulong size = BinaryPrimitives.ReadUInt64LittleEndian(symbol[16..]);
        if (type is not (TypeFunction or TypeNone) || section == 0 || section >= IndexReserved || section >= sections.Length || name >= names.Length)
            return;
        if ((sections[section].Flags & FlagExecutable) == 0 || value - sections[section].Address >= sections[section].Size)
            return;
        ReadOnlySpan<byte> text = names.AsSpan((int)name);
        int end = text[..Math.Min(text.Length, SymbolTableBuilder.MaximumName)].IndexOf((byte)0);
        int rank = (type == TypeFunction && size > 0 ? 4 : 0) + (binding == BindingGlobal ? 2 : binding == BindingWeak ? 0 : 1);
        builder.AddFunction(value, rank, end < 0 ? text[..Math.Min(text.Length, SymbolTableBuilder.MaximumName)] : text[..end]);
    }
}
