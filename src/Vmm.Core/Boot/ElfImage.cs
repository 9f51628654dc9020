using System.Buffers.Binary;

namespace Vmm.Core.Boot;

/// <summary>One loadable segment: bytes of the file, and zeros after them.</summary>
/// <param name="Offset">In the file (p_offset).</param>
/// <param name="FileLength">Bytes in the file (p_filesz), at most <paramref name="MemoryLength"/>.</param>
/// <param name="Address">Guest-physical (p_paddr).</param>
/// <param name="MemoryLength">Bytes in memory (p_memsz), at least 1.</param>
/// <param name="Virtual">The address it is linked for (p_vaddr).</param>
internal readonly record struct ElfSegment(ulong Offset, ulong FileLength, ulong Address, ulong MemoryLength, ulong Virtual)
{
    public ulong End => Address + MemoryLength;
}

/// <summary>
/// The headers of an ELF kernel (System V gABI chapters 4 and 5), validated: 64-bit, little-endian, x86-64, with segments inside
/// the file that neither overlap in memory nor wrap around.
/// </summary>
internal sealed class ElfImage
{
    /// <summary>A vmlinux has 5; what has more than this is none.</summary>
    internal const int MaximumProgramHeaders = 64;

    /// <summary>The most notes that are looked through, in bytes: a vmlinux has about 500.</summary>
    internal const int MaximumNoteBytes = 64 * 1024;

    private const int HeaderSize = 64;
    private const int ProgramHeaderSize = 56;
    private const ushort TypeExecutable = 2;
    private const ushort TypeShared = 3;
    private const ushort MachineX86_64 = 62;
    private const uint SegmentLoad = 1;
    private const uint SegmentNote = 4;
    private const uint NoteGuestOs = 6;
    private const uint NotePhysical32Entry = 18;

    private readonly List<ElfSegment> _segments = [];

    private ElfImage()
    {
    }

    /// <summary>The segments, by rising address; at least one.</summary>
    public IReadOnlyList<ElfSegment> Segments => _segments;

    /// <summary>The guest-physical address of the 64-bit entry.</summary>
    public ulong Entry { get; private set; }

    /// <summary>The guest-physical address of the 32-bit PVH entry (XEN_ELFNOTE_PHYS32_ENTRY), or null.</summary>
    public uint? PvhEntry { get; private set; }

    /// <summary>Whether a note says that it is Linux (XEN_ELFNOTE_GUEST_OS).</summary>
    public bool IsLinux { get; private set; }

    /// <summary>The lowest address of a segment.</summary>
    public ulong Start => _segments[0].Address;

    /// <summary>The first address past all segments.</summary>
    public ulong End => _segments[^1].End;

    /// <summary>Whether a file begins as an ELF file does.</summary>
    public static bool Claims(IKernelFile file)
    {
        if (file.Length < 4)
            return false;
        Span<byte> magic = stackalloc byte[4];
        file.Read(0, magic);
        return magic.SequenceEqual("\u007fELF"u8);
    }

    /// <summary>Reads and validates the headers and notes.</summary>
    /// <exception cref="VmmException">They are wrong, or it is no kernel for x86-64.</exception>
    public static ElfImage Parse(IKernelFile file)
    {
        if (file.Length < HeaderSize)
            throw Bad(file, $"is too short for an ELF file: {file.Length} bytes, and the header alone has {HeaderSize}");
        Span<byte> header = stackalloc byte[HeaderSize];
        file.Read(0, header);
        (ulong tableOffset, int count) = CheckHeader(file, header);
        byte[] table = new byte[count * ProgramHeaderSize];
        file.Read(tableOffset, table);

        var image = new ElfImage();
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> entry = table.AsSpan(i * ProgramHeaderSize, ProgramHeaderSize);
            if (BinaryPrimitives.ReadUInt32LittleEndian(entry) == SegmentLoad)
                image.AddSegment(file, i, entry);
        }
        image.CheckSegments(file);
        image.Entry = image.Locate(file, BinaryPrimitives.ReadUInt64LittleEndian(header[24..]));
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> entry = table.AsSpan(i * ProgramHeaderSize, ProgramHeaderSize);
            if (BinaryPrimitives.ReadUInt32LittleEndian(entry) == SegmentNote)
                image.ReadNotes(file, i, entry);
        }
        return image;
    }

    private static (ulong TableOffset, int Count) CheckHeader(IKernelFile file, ReadOnlySpan<byte> header)
    {
        if (!header[..4].SequenceEqual("\u007fELF"u8))
            throw Bad(file, "is not an ELF file");
        if (header[4] != 2)
            throw Bad(file, $"is an ELF file of class {header[4]}, not of class 2 (64-bit); take a kernel for x86-64");
        if (header[5] != 1)
            throw Bad(file, $"is an ELF file with data encoding {header[5]}, not 1 (little-endian); take a kernel for x86-64");
        ushort type = BinaryPrimitives.ReadUInt16LittleEndian(header[16..]);
        ushort machine = BinaryPrimitives.ReadUInt16LittleEndian(header[18..]);
        if (machine != MachineX86_64)
            throw Bad(file, $"is an ELF file for machine {machine}, not {MachineX86_64} (x86-64); take a kernel for x86-64");
        if (header[6] != 1 || BinaryPrimitives.ReadUInt32LittleEndian(header[20..]) != 1)
            throw Bad(file, "is an ELF file of an unknown version, not of version 1");
        if (type is not (TypeExecutable or TypeShared))
            throw Bad(file, $"is an ELF file of type {type} and not an executable one (type 2 or 3); it is no kernel");
        ulong tableOffset = BinaryPrimitives.ReadUInt64LittleEndian(header[32..]);
        ushort entrySize = BinaryPrimitives.ReadUInt16LittleEndian(header[54..]);
        ushort count = BinaryPrimitives.ReadUInt16LittleEndian(header[56..]);
        if (count == 0)
            throw Bad(file, "is an ELF file without program headers; it is no kernel");
        if (count > MaximumProgramHeaders)
            throw Bad(file, $"is an ELF file with {count} program headers, more than the {MaximumProgramHeaders} that a kernel may have");
        if (entrySize != ProgramHeaderSize)
            throw Bad(file, $"is an ELF file with program headers of {entrySize} bytes, not {ProgramHeaderSize}");
        if (tableOffset > file.Length || (ulong)count * ProgramHeaderSize > file.Length - tableOffset)
            throw Bad(file, $"is truncated: its {count} program headers at offset {tableOffset} end past its {file.Length} bytes; get the file again");
        return (tableOffset, count);
    }

    private void AddSegment(IKernelFile file, int index, ReadOnlySpan<byte> entry)
    {
        var segment = new ElfSegment(
            Offset: BinaryPrimitives.ReadUInt64LittleEndian(entry[8..]),
            FileLength: BinaryPrimitives.ReadUInt64LittleEndian(entry[32..]),
            Address: BinaryPrimitives.ReadUInt64LittleEndian(entry[24..]),
            MemoryLength: BinaryPrimitives.ReadUInt64LittleEndian(entry[40..]),
            Virtual: BinaryPrimitives.ReadUInt64LittleEndian(entry[16..]));
        if (segment.FileLength > segment.MemoryLength)
            throw Bad(file, $"has an ELF segment {index} with more bytes in the file (0x{segment.FileLength:x}) than in memory (0x{segment.MemoryLength:x})");
        if (segment.MemoryLength == 0)
            return;
        if (segment.Offset > file.Length || segment.FileLength > file.Length - segment.Offset)
            throw Bad(file, $"is truncated: its ELF segment {index} (0x{segment.FileLength:x} bytes at offset 0x{segment.Offset:x}) ends past its {file.Length} bytes; get the file again");
        if (segment.MemoryLength > ulong.MaxValue - segment.Address)
            throw Bad(file, $"has an ELF segment {index} at 0x{segment.Address:x} that reaches past the end of all addresses");
        if (segment.Address < BootLayout.HighMemoryStart)
            throw Bad(file, $"has an ELF segment {index} at 0x{segment.Address:x}, below 1 MiB, where no kernel can be loaded");
        _segments.Add(segment);
    }

    private void CheckSegments(IKernelFile file)
    {
        if (_segments.Count == 0)
            throw Bad(file, "is an ELF file without a segment to load; it is no kernel");
        _segments.Sort((a, b) => a.Address.CompareTo(b.Address));
        for (int i = 1; i < _segments.Count; i++)
        {
            if (_segments[i].Address < _segments[i - 1].End)
                throw Bad(file, $"has ELF segments that overlap at 0x{_segments[i].Address:x}");
        }
    }

    /// <summary>The physical address of an entry: a vmlinux gives that, other files give the address they are linked for.</summary>
    private ulong Locate(IKernelFile file, ulong entry)
    {
        foreach (ElfSegment segment in _segments)
        {
            if (entry >= segment.Address && entry < segment.End)
                return entry;
        }
        foreach (ElfSegment segment in _segments)
        {
            if (entry >= segment.Virtual && entry - segment.Virtual < segment.MemoryLength)
                return segment.Address + (entry - segment.Virtual);
        }
        throw Bad(file, $"is an ELF file with its entry at 0x{entry:x}, outside all of its segments");
    }

    private void ReadNotes(IKernelFile file, int index, ReadOnlySpan<byte> entry)
    {
        ulong offset = BinaryPrimitives.ReadUInt64LittleEndian(entry[8..]);
        ulong length = BinaryPrimitives.ReadUInt64LittleEndian(entry[32..]);
        int alignment = BinaryPrimitives.ReadUInt64LittleEndian(entry[48..]) == 8 ? 8 : 4;
        if (offset > file.Length || length > file.Length - offset)
            throw Bad(file, $"is truncated: its ELF notes (segment {index}) end past its {file.Length} bytes; get the file again");
        byte[] notes = new byte[(int)Math.Min(length, MaximumNoteBytes)];
        file.Read(offset, notes);
        ReadOnlySpan<byte> rest = notes;
        while (rest.Length >= 12)
        {
            uint nameLength = BinaryPrimitives.ReadUInt32LittleEndian(rest);
            uint valueLength = BinaryPrimitives.ReadUInt32LittleEndian(rest[4..]);
            uint type = BinaryPrimitives.ReadUInt32LittleEndian(rest[8..]);
            long valueStart = Align(12L + nameLength, alignment);
            if (valueStart + valueLength > rest.Length)
                return;
            ReadOnlySpan<byte> value = rest.Slice((int)valueStart, (int)valueLength);
            if (nameLength == 4 && rest.Slice(12, 4).SequenceEqual("Xen\0"u8))
                TakeXenNote(file, type, value);
            long next = Align(valueStart + valueLength, alignment);
            if (next >= rest.Length)
                return;
            rest = rest[(int)next..];
        }
    }

    private void TakeXenNote(IKernelFile file, uint type, ReadOnlySpan<byte> value)
    {
        if (type == NoteGuestOs)
            IsLinux = value.StartsWith("linux"u8);
        if (type != NotePhysical32Entry)
            return;
        ulong entry = value.Length switch
        {
            4 => BinaryPrimitives.ReadUInt32LittleEndian(value),
            8 => BinaryPrimitives.ReadUInt64LittleEndian(value),
            _ => throw Bad(file, $"has a PVH note (XEN_ELFNOTE_PHYS32_ENTRY) of {value.Length} bytes, not 4 or 8"),
        };
        foreach (ElfSegment segment in _segments)
        {
            if (entry >= segment.Address && entry < segment.End && entry < BootLayout.FourGiB)
            {
                PvhEntry = (uint)entry;
                return;
            }
        }
        throw Bad(file, $"has its PVH entry (XEN_ELFNOTE_PHYS32_ENTRY) at 0x{entry:x}, outside all of its segments");
    }

    private static long Align(long value, int alignment) => (value + (alignment - 1)) & ~(long)(alignment - 1);

    private static VmmException Bad(IKernelFile file, string why) => VmmException.Configuration($"The {file.Name} {why}.");
}
