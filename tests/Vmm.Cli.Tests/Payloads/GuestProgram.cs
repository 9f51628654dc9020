using System.Buffers.Binary;
using System.Text;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Tests.Payloads;

/// <summary>
/// Small kernels: ELF64 files with one segment at 1 MiB and no PVH note, so they are entered in 64-bit mode with the first 4 GiB
/// mapped onto themselves, a stack below 0x9000, and no interrupt table.
/// </summary>
internal static class GuestProgram
{
    internal const ulong Address = 0x10_0000;

    private const ushort Serial = 0x3F8;
    private const ushort PowerManagementControl = 0x604;
    private const int HeaderLength = 64 + 56;
    private const int CodeOffset = 0x1000;

    /// <summary>A kernel file of this code.</summary>
    internal static byte[] Elf(Action<Assembler> build)
    {
        var assembler = new Assembler(64);
        build(assembler);
        using var stream = new MemoryStream();
        assembler.Assemble(new StreamCodeWriter(stream), Address);
        return Elf(stream.ToArray());
    }

    /// <summary>A kernel file of machine code.</summary>
    internal static byte[] Elf(ReadOnlySpan<byte> code)
    {
        byte[] file = new byte[CodeOffset + code.Length];
        Span<byte> b = file;
        "\u007fELF\u0002\u0001\u0001"u8.CopyTo(b);
        BinaryPrimitives.WriteUInt16LittleEndian(b[16..], 2);
        BinaryPrimitives.WriteUInt16LittleEndian(b[18..], 62);
        BinaryPrimitives.WriteUInt32LittleEndian(b[20..], 1);
        BinaryPrimitives.WriteUInt64LittleEndian(b[24..], Address);
        BinaryPrimitives.WriteUInt64LittleEndian(b[32..], 64);
        BinaryPrimitives.WriteUInt16LittleEndian(b[52..], 64);
        BinaryPrimitives.WriteUInt16LittleEndian(b[54..], 56);
        BinaryPrimitives.WriteUInt16LittleEndian(b[56..], 1);
        Span<byte> segment = b[64..HeaderLength];
        BinaryPrimitives.WriteUInt32LittleEndian(segment, 1);
        BinaryPrimitives.WriteUInt32LittleEndian(segment[4..], 7);
        BinaryPrimitives.WriteUInt64LittleEndian(segment[8..], CodeOffset);
        BinaryPrimitives.WriteUInt64LittleEndian(segment[16..], Address);
        BinaryPrimitives.WriteUInt64LittleEndian(segment[24..], Address);
        BinaryPrimitives.WriteUInt64LittleEndian(segment[32..], (ulong)code.Length);
        BinaryPrimitives.WriteUInt64LittleEndian(segment[40..], (ulong)code.Length);
        BinaryPrimitives.WriteUInt64LittleEndian(segment[48..], 0x1000);
        code.CopyTo(b[CodeOffset..]);
        return file;
    }

    /// <summary>Writes a text to the serial port.</summary>
    internal static void Print(this Assembler a, string text)
    {
        a.mov(dx, Serial);
        foreach (byte c in Encoding.ASCII.GetBytes(text))
        {
            a.mov(al, c);
            a.@out(dx, al);
        }
    }

    /// <summary>Writes a text to the serial port for ever: the text's length is a multiple of nothing, so wrong order shows.</summary>
    internal static void PrintForEver(this Assembler a, string text)
    {
        Label again = a.CreateLabel();
        a.Label(ref again);
        a.Print(text);
        a.jmp(again);
    }

    /// <summary>Writes one byte to a port.</summary>
    internal static void Out(this Assembler a, ushort port, byte value)
    {
        a.mov(dx, port);
        a.mov(al, value);
        a.@out(dx, al);
    }

    /// <summary>ACPI S5: SLP_EN with SLP_TYP 5 into PM1a control, then waits for the end.</summary>
    internal static void PowerOff(this Assembler a)
    {
        a.mov(dx, PowerManagementControl);
        a.mov(ax, (short)((5 << 10) | (1 << 13)));
        a.@out(dx, ax);
        a.Hang();
    }

    /// <summary>Loops with interrupts off.</summary>
    internal static void Hang(this Assembler a)
    {
        Label here = a.CreateLabel();
        a.cli();
        a.Label(ref here);
        a.jmp(here);
    }
}
