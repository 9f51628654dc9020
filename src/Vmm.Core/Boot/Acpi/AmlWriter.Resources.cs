using System.Buffers.Binary;
using Vmm.Core.Memory;

namespace Vmm.Core.Boot.Acpi;

/// <summary>How an interrupt is signalled (ACPI 6.5 §6.4.3.6, the flags of an extended interrupt descriptor).</summary>
[Flags]
public enum AmlInterrupt : byte
{
    /// <summary>Level-triggered, active high, used by one device.</summary>
    Level = 0,

    /// <summary>Edge-triggered.</summary>
    Edge = 1 << 1,

    /// <summary>Active low.</summary>
    ActiveLow = 1 << 2,

    /// <summary>Shared between devices.</summary>
    Shared = 1 << 3,
}

public sealed partial class AmlWriter
{
    // §6.4.3.5: a range that a bridge passes on (producer), with fixed ends.
    private const byte ProducedFixedRange = 0x0C;

    // §6.4.3.5.5: read-write, and for I/O the whole range of ports.
    private const byte MemoryReadWrite = 0x01;
    private const byte MemoryPrefetchable = 0x06;
    private const byte IOEntireRange = 0x03;

    /// <summary>ResourceTemplate (§19.6.119): a buffer of the descriptors written in the block, and an end tag.</summary>
    public AmlBlock ResourceTemplate()
    {
        Byte(0x11);
        return Open(AmlBlockKind.ResourceTemplate);
    }

    /// <summary>IO (§6.4.2.5): ports at one place, all 16 address bits decoded.</summary>
    /// <param name="port">The first port.</param>
    /// <param name="length">How many, 1 to 255.</param>
    public AmlWriter IO(ushort port, byte length)
    {
        Span<byte> b = Grow(8);
        b[0] = 0x47;
        b[1] = 0x01;
        BinaryPrimitives.WriteUInt16LittleEndian(b[2..], port);
        BinaryPrimitives.WriteUInt16LittleEndian(b[4..], port);
        b[6] = 0x01;
        b[7] = length;
        return this;
    }

    /// <summary>IRQNoFlags (§6.4.2.1): one ISA interrupt, edge-triggered, active high, exclusive.</summary>
    public AmlWriter IrqNoFlags(int irq)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)irq, 15u, nameof(irq));
        Span<byte> b = Grow(3);
        b[0] = 0x22;
        BinaryPrimitives.WriteUInt16LittleEndian(b[1..], (ushort)(1 << irq));
        return this;
    }

    /// <summary>IRQ (§6.4.2.1): one ISA interrupt with its flags.</summary>
    public AmlWriter Irq(int irq, AmlInterrupt flags)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)irq, 15u, nameof(irq));
        Span<byte> b = Grow(4);
        b[0] = 0x23;
        BinaryPrimitives.WriteUInt16LittleEndian(b[1..], (ushort)(1 << irq));
        b[3] = (byte)((flags.HasFlag(AmlInterrupt.Edge) ? 0x01 : 0)
            | (flags.HasFlag(AmlInterrupt.ActiveLow) ? 0x08 : 0)
            | (flags.HasFlag(AmlInterrupt.Shared) ? 0x10 : 0));
        return this;
    }

    /// <summary>Interrupt (§6.4.3.6): one global system interrupt that the device consumes.</summary>
    public AmlWriter Interrupt(uint gsi, AmlInterrupt flags)
    {
        Span<byte> b = Grow(9);
        b[0] = 0x89;
        BinaryPrimitives.WriteUInt16LittleEndian(b[1..], 6);
        b[3] = (byte)(0x01 | (byte)flags);
        b[4] = 1;
        BinaryPrimitives.WriteUInt32LittleEndian(b[5..], gsi);
        return this;
    }

    /// <summary>Memory32Fixed (§6.4.3.4): read-write memory at one place below 4 GiB.</summary>
    public AmlWriter Memory32Fixed(uint start, uint length)
    {
        Span<byte> b = Grow(12);
        b[0] = 0x86;
        BinaryPrimitives.WriteUInt16LittleEndian(b[1..], 9);
        b[3] = 0x01;
        BinaryPrimitives.WriteUInt32LittleEndian(b[4..], start);
        BinaryPrimitives.WriteUInt32LittleEndian(b[8..], length);
        return this;
    }

    /// <summary>WordBusNumber (§6.4.3.5.3): the buses behind a bridge.</summary>
    public AmlWriter WordBusNumber(byte first, byte last) => WordSpace(2, 0, first, last);

    /// <summary>WordIO (§6.4.3.5.3): ports that a bridge passes on.</summary>
    public AmlWriter WordIO(ushort first, ushort last) => WordSpace(1, IOEntireRange, first, last);

    /// <summary>DWordIO (§6.4.3.5.2): ports that a bridge passes on.</summary>
    public AmlWriter DWordIO(uint first, uint last) => DWordSpace(1, IOEntireRange, first, last);

    /// <summary>DWordMemory (§6.4.3.5.2): memory below 4 GiB that a bridge passes on, not cacheable.</summary>
    /// <exception cref="ArgumentException">The range is empty or not below 4 GiB.</exception>
    public AmlWriter DWordMemory(AddressRange range)
    {
        if (range.IsEmpty || !new AddressRange(0, 1UL << 32).Contains(range.Start, range.Length))
            throw new ArgumentException($"{range} is not a range below 4 GiB.", nameof(range));
        return DWordSpace(0, MemoryReadWrite, (uint)range.Start, (uint)range.Last);
    }

    /// <summary>QWordMemory (§6.4.3.5.1): memory that a bridge passes on.</summary>
    /// <param name="range">Not empty.</param>
    /// <param name="prefetchable">Whether reads have no side effects.</param>
    public AmlWriter QWordMemory(AddressRange range, bool prefetchable = false)
    {
        if (range.IsEmpty)
            throw new ArgumentException("A range of memory is empty.", nameof(range));
        Span<byte> b = AddressSpace(0x8A, 46, 0, (byte)(MemoryReadWrite | (prefetchable ? MemoryPrefetchable : 0)));
        BinaryPrimitives.WriteUInt64LittleEndian(b[14..], range.Start);
        BinaryPrimitives.WriteUInt64LittleEndian(b[22..], range.Last);
        BinaryPrimitives.WriteUInt64LittleEndian(b[38..], range.Length);
        return this;
    }

    private AmlWriter WordSpace(byte type, byte typeFlags, ushort first, ushort last)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(first, last);
        Span<byte> b = AddressSpace(0x88, 16, type, typeFlags);
        BinaryPrimitives.WriteUInt16LittleEndian(b[8..], first);
        BinaryPrimitives.WriteUInt16LittleEndian(b[10..], last);
        // A whole 64 Ki does not fit into 16 bits; the interpreter takes the ends.
        BinaryPrimitives.WriteUInt16LittleEndian(b[14..], unchecked((ushort)(last - first + 1)));
        return this;
    }

    private AmlWriter DWordSpace(byte type, byte typeFlags, uint first, uint last)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(first, last);
        Span<byte> b = AddressSpace(0x87, 26, type, typeFlags);
        BinaryPrimitives.WriteUInt32LittleEndian(b[10..], first);
        BinaryPrimitives.WriteUInt32LittleEndian(b[14..], last);
        BinaryPrimitives.WriteUInt32LittleEndian(b[22..], unchecked(last - first + 1));
        return this;
    }

    /// <summary>The part that the three sizes of address space descriptor share; granularity and translation stay 0.</summary>
    private Span<byte> AddressSpace(byte tag, int length, byte type, byte typeFlags)
    {
        Span<byte> b = Grow(length);
        b.Clear();
        b[0] = tag;
        BinaryPrimitives.WriteUInt16LittleEndian(b[1..], (ushort)(length - 3));
        b[3] = type;
        b[4] = ProducedFixedRange;
        b[5] = typeFlags;
        return b;
    }
}
