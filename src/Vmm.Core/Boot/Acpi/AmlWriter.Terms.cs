namespace Vmm.Core.Boot.Acpi;

/// <summary>The address space of an operation region (ACPI 6.5 §20.2.5.2, RegionSpace).</summary>
public enum AmlRegionSpace : byte
{
    /// <summary>System memory.</summary>
    SystemMemory = 0,

    /// <summary>I/O ports.</summary>
    SystemIO = 1,

    /// <summary>PCI configuration space.</summary>
    PciConfig = 2,
}

/// <summary>The width of a field's accesses (ACPI 6.5 §20.2.5.2, AccessType).</summary>
public enum AmlAccess : byte
{
    /// <summary>Whatever the interpreter likes.</summary>
    Any = 0,

    /// <summary>8 bits.</summary>
    Byte = 1,

    /// <summary>16 bits.</summary>
    Word = 2,

    /// <summary>32 bits.</summary>
    DWord = 3,

    /// <summary>64 bits.</summary>
    QWord = 4,
}

/// <summary>What becomes of the bits beside a written field (ACPI 6.5 §20.2.5.2, UpdateRule).</summary>
public enum AmlUpdate : byte
{
    /// <summary>Kept.</summary>
    Preserve = 0,

    /// <summary>Written as ones.</summary>
    WriteAsOnes = 1,

    /// <summary>Written as zeros.</summary>
    WriteAsZeros = 2,
}

public sealed partial class AmlWriter
{
    /// <summary>Name (§20.2.5.1): what is written next is the object's value. The cheapest object for a guest: nothing to interpret.</summary>
    public AmlWriter NameObject(ReadOnlySpan<char> name) => Byte(0x08).Name(name);

    /// <summary>Scope (§20.2.5.1): what is in the block goes into an existing object's scope.</summary>
    public AmlBlock Scope(ReadOnlySpan<char> name) => Named(0x10, name);

    /// <summary>Device (§20.2.5.2).</summary>
    public AmlBlock Device(ReadOnlySpan<char> name)
    {
        Byte(ExtendedPrefix);
        return Named(0x82, name);
    }

    /// <summary>Method (§20.2.5.2).</summary>
    /// <param name="name">Its name.</param>
    /// <param name="arguments">How many it takes, 0 to 7.</param>
    /// <param name="serialized">
    /// Whether one call at a time runs. Needed by a method that creates named objects; and cheaper to load: ACPICA parses a
    /// method that is not serialized once, when it loads the table, to see whether it should be.
    /// </param>
    public AmlBlock Method(ReadOnlySpan<char> name, int arguments, bool serialized = true)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(arguments);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(arguments, 7);
        AmlBlock block = Named(0x14, name);
        Byte((byte)(arguments | (serialized ? 8 : 0)));
        return block;
    }

    /// <summary>Mutex (§20.2.5.2).</summary>
    /// <param name="name">Its name.</param>
    /// <param name="syncLevel">0 to 15.</param>
    public AmlWriter Mutex(ReadOnlySpan<char> name, byte syncLevel = 0)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(syncLevel, 15);
        return Extended(0x01).Name(name).Byte(syncLevel);
    }

    /// <summary>OperationRegion (§20.2.5.2) of constant place and length.</summary>
    public AmlWriter OperationRegion(ReadOnlySpan<char> name, AmlRegionSpace space, ulong offset, ulong length) =>
        Extended(0x80).Name(name).Byte((byte)space).Integer(offset).Integer(length);

    /// <summary>Field (§20.2.5.2): the block holds <see cref="FieldUnit"/> and <see cref="FieldGap"/>.</summary>
    public AmlBlock Field(ReadOnlySpan<char> region, AmlAccess access, AmlUpdate update, bool locked = false)
    {
        Byte(ExtendedPrefix);
        AmlBlock block = Named(0x81, region);
        Byte(FieldFlags(access, update, locked));
        return block;
    }

    /// <summary>IndexField (§20.2.5.2): units reached through an index and a data register.</summary>
    public AmlBlock IndexField(ReadOnlySpan<char> index, ReadOnlySpan<char> data, AmlAccess access, AmlUpdate update, bool locked = false)
    {
        Byte(ExtendedPrefix);
        AmlBlock block = Named(0x86, index);
        Name(data).Byte(FieldFlags(access, update, locked));
        return block;
    }

    /// <summary>A named unit of a field.</summary>
    /// <param name="name">One segment.</param>
    /// <param name="bits">Its width.</param>
    public AmlWriter FieldUnit(ReadOnlySpan<char> name, int bits)
    {
        NameSegment(name);
        return FieldLength(bits);
    }

    /// <summary>Bits of a field that have no name.</summary>
    public AmlWriter FieldGap(int bits)
    {
        Byte(0x00);
        return FieldLength(bits);
    }

    /// <summary>If (§20.2.5.3): the condition is written first in the block.</summary>
    public AmlBlock If() => Op(0xA0);

    /// <summary>Else (§20.2.5.3), right after an If.</summary>
    public AmlBlock Else() => Op(0xA1);

    /// <summary>While (§20.2.5.3): the condition is written first in the block.</summary>
    public AmlBlock While() => Op(0xA2);

    /// <summary>Return (§20.2.5.3) of the operand that follows.</summary>
    public AmlWriter Return() => Byte(0xA4);

    /// <summary>Break (§20.2.5.3) out of the innermost While.</summary>
    public AmlWriter Break() => Byte(0xA5);

    /// <summary>Notify (§20.2.5.3): object, value.</summary>
    public AmlWriter Notify() => Byte(0x86);

    /// <summary>Acquire (§20.2.5.4) of a mutex.</summary>
    /// <param name="mutex">Its name.</param>
    /// <param name="timeout">Milliseconds; 0xFFFF waits for ever.</param>
    public AmlWriter Acquire(ReadOnlySpan<char> mutex, ushort timeout = 0xFFFF) =>
        Extended(0x23).Name(mutex).Byte((byte)timeout).Byte((byte)(timeout >> 8));

    /// <summary>Release (§20.2.5.3) of a mutex.</summary>
    public AmlWriter Release(ReadOnlySpan<char> mutex) => Extended(0x27).Name(mutex);

    /// <summary>Store (§20.2.5.4): source, target.</summary>
    public AmlWriter Store() => Byte(0x70);

    /// <summary>Add (§20.2.5.4): operand, operand, target.</summary>
    public AmlWriter Add() => Byte(0x72);

    /// <summary>Subtract (§20.2.5.4): minuend, subtrahend, target.</summary>
    public AmlWriter Subtract() => Byte(0x74);

    /// <summary>Increment (§20.2.5.4): the operand, in place.</summary>
    public AmlWriter Increment() => Byte(0x75);

    /// <summary>Decrement (§20.2.5.4): the operand, in place.</summary>
    public AmlWriter Decrement() => Byte(0x76);

    /// <summary>Multiply (§20.2.5.4): operand, operand, target.</summary>
    public AmlWriter Multiply() => Byte(0x77);

    /// <summary>Divide (§20.2.5.4): dividend, divisor, remainder's target, quotient's target.</summary>
    public AmlWriter Divide() => Byte(0x78);

    /// <summary>ShiftLeft (§20.2.5.4): operand, count, target.</summary>
    public AmlWriter ShiftLeft() => Byte(0x79);

    /// <summary>ShiftRight (§20.2.5.4): operand, count, target.</summary>
    public AmlWriter ShiftRight() => Byte(0x7A);

    /// <summary>And (§20.2.5.4), bit by bit: operand, operand, target.</summary>
    public AmlWriter And() => Byte(0x7B);

    /// <summary>Or (§20.2.5.4), bit by bit: operand, operand, target.</summary>
    public AmlWriter Or() => Byte(0x7D);

    /// <summary>XOr (§20.2.5.4), bit by bit: operand, operand, target.</summary>
    public AmlWriter Xor() => Byte(0x7F);

    /// <summary>Not (§20.2.5.4), bit by bit: operand, target.</summary>
    public AmlWriter Not() => Byte(0x80);

    /// <summary>DerefOf (§20.2.5.4): reference.</summary>
    public AmlWriter DerefOf() => Byte(0x83);

    /// <summary>SizeOf (§20.2.5.4): object.</summary>
    public AmlWriter SizeOf() => Byte(0x87);

    /// <summary>Index (§20.2.5.4): object, index, target.</summary>
    public AmlWriter Index() => Byte(0x88);

    /// <summary>LAnd (§20.2.5.4): operand, operand.</summary>
    public AmlWriter LAnd() => Byte(0x90);

    /// <summary>LOr (§20.2.5.4): operand, operand.</summary>
    public AmlWriter LOr() => Byte(0x91);

    /// <summary>LNot (§20.2.5.4): operand.</summary>
    public AmlWriter LNot() => Byte(0x92);

    /// <summary>LEqual (§20.2.5.4): operand, operand.</summary>
    public AmlWriter LEqual() => Byte(0x93);

    /// <summary>LNotEqual (§20.2.5.4): operand, operand.</summary>
    public AmlWriter LNotEqual() => Byte(0x92).Byte(0x93);

    /// <summary>LGreater (§20.2.5.4): operand, operand.</summary>
    public AmlWriter LGreater() => Byte(0x94);

    /// <summary>LLess (§20.2.5.4): operand, operand.</summary>
    public AmlWriter LLess() => Byte(0x95);

    /// <summary>CreateDWordField (§20.2.5.2): buffer, index in bytes, then the new field's <see cref="Name"/>.</summary>
    public AmlWriter CreateDWordField() => Byte(0x8A);

    /// <summary>CreateQWordField (§20.2.5.2): buffer, index in bytes, then the new field's <see cref="Name"/>.</summary>
    public AmlWriter CreateQWordField() => Byte(0x8F);

    /// <summary>Local0 to Local7 (§20.2.6.2).</summary>
    public AmlWriter Local(int index)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)index, 7u, nameof(index));
        return Byte((byte)(0x60 + index));
    }

    /// <summary>Arg0 to Arg6 (§20.2.6.1).</summary>
    public AmlWriter Arg(int index)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)index, 6u, nameof(index));
        return Byte((byte)(0x68 + index));
    }

    /// <summary>The target of an operator whose result is only used as a value (§20.2.2, NullName).</summary>
    public AmlWriter NoTarget() => Byte(0x00);

    private AmlBlock Op(byte opcode)
    {
        Byte(opcode);
        return Open(AmlBlockKind.Plain);
    }

    private AmlBlock Named(byte opcode, ReadOnlySpan<char> name)
    {
        AmlBlock block = Op(opcode);
        Name(name);
        return block;
    }

    private AmlWriter FieldLength(int bits)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(bits);
        Span<byte> encoded = stackalloc byte[4];
        return Bytes(encoded[..EncodePackageLength(bits, encoded, countsItself: false)]);
    }

    private static byte FieldFlags(AmlAccess access, AmlUpdate update, bool locked) =>
        (byte)((int)access | (locked ? 0x10 : 0) | (int)update << 5);
}
