using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Vmm.Core.Tests.Payloads;

/// <summary>Small guest programs, made by Iced's assembler.</summary>
internal static class Payload
{
    /// <summary>Where they are loaded.</summary>
    public const ulong Address = 0x10_0000;

    /// <summary>A guest that writes here is done; the byte is its result.</summary>
    public const byte DonePort = 0xF4;

    /// <summary>The same for code that may not use ports.</summary>
    public const ulong DoneAddress = 0xD000_0000;

    /// <summary>A byte written here is added to the machine's log.</summary>
    public const byte LogPort = 0xE9;

    /// <summary>Code of 64 bits.</summary>
    public static byte[] Long(Action<Assembler> build, ulong address = Address) => Assemble(64, build, address);

    /// <summary>Code of 32 bits.</summary>
    public static byte[] Protected(Action<Assembler> build, ulong address = Address) => Assemble(32, build, address);

    /// <summary>Code of 16 bits.</summary>
    public static byte[] Real(Action<Assembler> build, ulong address) => Assemble(16, build, address);

    /// <summary>Ends with a result; never goes on.</summary>
    public static void Done(this Assembler a, byte result = 0)
    {
        a.mov(al, result);
        a.@out(DonePort, al);
        Spin(a);
    }

    /// <summary>Ends without ports.</summary>
    public static void DoneByMemory(this Assembler a, byte result = 0)
    {
        a.mov(rdi, DoneAddress);
        a.mov(__byte_ptr[rdi], result);
        Spin(a);
    }

    /// <summary>Adds a byte to the log.</summary>
    public static void Log(this Assembler a, byte value)
    {
        a.mov(al, value);
        a.@out(LogPort, al);
    }

    /// <summary>Loops for ever.</summary>
    public static void Spin(this Assembler a)
    {
        Label here = a.CreateLabel();
        a.Label(ref here);
        a.jmp(here);
    }

    private static byte[] Assemble(int bits, Action<Assembler> build, ulong address)
    {
        var assembler = new Assembler(bits);
        build(assembler);
        using var stream = new MemoryStream();
        assembler.Assemble(new StreamCodeWriter(stream), address);
        return stream.ToArray();
    }
}
