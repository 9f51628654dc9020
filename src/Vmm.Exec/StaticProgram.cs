using System.Buffers.Binary;

namespace Vmm.Exec;

/// <summary>A static program for Linux on x86-64 as an ELF file (System V gABI chapters 4 and 5): code, data, and zeroes.</summary>
internal static class StaticProgram
{
    private const int HeaderSize = 64, ProgramHeaderSize = 56, PageSize = 4096;
    private const uint Load = 1, GnuStack = 0x6474E551;
    private const uint Execute = 1, Write = 2, Read = 4;

    /// <summary>Makes the file; code is entered at its beginning.</summary>
    /// <param name="codeStart">Where the code is, a multiple of the page size, as all of these.</param>
    /// <param name="code">The code.</param>
    /// <param name="data">Data and zeroes, at their own addresses.</param>
    internal static byte[] Elf(ulong codeStart, ReadOnlySpan<byte> code, InitData data)
    {
        byte[] content = data.ToArray();
        int dataOffset = PageSize + Pages(code.Length);
        byte[] file = new byte[dataOffset + content.Length];
        Span<byte> b = file;
        "\u007fELF\u0002\u0001\u0001"u8.CopyTo(b);
        BinaryPrimitives.WriteUInt16LittleEndian(b[16..], 2); // ET_EXEC
        BinaryPrimitives.WriteUInt16LittleEndian(b[18..], 62); // EM_X86_64
        BinaryPrimitives.WriteUInt32LittleEndian(b[20..], 1);
        BinaryPrimitives.WriteUInt64LittleEndian(b[24..], codeStart);
        BinaryPrimitives.WriteUInt64LittleEndian(b[32..], HeaderSize);
        BinaryPrimitives.WriteUInt16LittleEndian(b[52..], HeaderSize);
        BinaryPrimitives.WriteUInt16LittleEndian(b[54..], ProgramHeaderSize);
        BinaryPrimitives.WriteUInt16LittleEndian(b[56..], 4);
        Segment(b, 0, Load, Read | Execute, PageSize, codeStart, (ulong)code.Length, (ulong)code.Length);
        Segment(b, 1, Load, Read | Write, (ulong)dataOffset, data.Start, (ulong)content.Length, (ulong)content.Length);
        Segment(b, 2, Load, Read | Write, 0, data.ZeroStart, 0, data.ZeroLength);
        Segment(b, 3, GnuStack, Read | Write, 0, 0, 0, 0);
        code.CopyTo(b[PageSize..]);
        content.CopyTo(b[dataOffset..]);
        return file;
    }

    private static void Segment(Span<byte> file, int index, uint type, uint flags, ulong offset, ulong address, ulong length, ulong memory)
    {
        Span<byte> b = file[(HeaderSize + (index * ProgramHeaderSize))..];
        BinaryPrimitives.WriteUInt32LittleEndian(b, type);
        BinaryPrimitives.WriteUInt32LittleEndian(b[4..], flags);
        BinaryPrimitives.WriteUInt64LittleEndian(b[8..], offset);
        BinaryPrimitives.WriteUInt64LittleEndian(b[16..], address);
        BinaryPrimitives.WriteUInt64LittleEndian(b[24..], address);
        BinaryPrimitives.WriteUInt64LittleEndian(b[32..], length);
        BinaryPrimitives.WriteUInt64LittleEndian(b[40..], memory);
        BinaryPrimitives.WriteUInt64LittleEndian(b[48..], PageSize);
    }

    private static int Pages(int length) => (length + PageSize - 1) / PageSize * PageSize;
}
