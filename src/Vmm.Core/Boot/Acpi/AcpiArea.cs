using System.Buffers.Binary;

namespace Vmm.Core.Boot.Acpi;

/// <summary>The area that tables are put into, one after the other.</summary>
internal ref struct AcpiArea(Span<byte> area, uint start)
{
    private readonly Span<byte> _area = area;
    private readonly uint _start = start;

    /// <summary>Who made the tables, in every header: 6 characters.</summary>
    public static ReadOnlySpan<byte> OemId => "VMM   "u8;

    private static ReadOnlySpan<byte> OemTableId => "VMM     "u8;

    private static ReadOnlySpan<byte> CreatorId => "VMM "u8;

    /// <summary>Bytes used.</summary>
    public int Length { get; set; }

    /// <summary>Takes zeroed bytes for a structure.</summary>
    /// <param name="length">How many.</param>
    /// <param name="alignment">A power of two.</param>
    /// <param name="address">Where the guest finds them.</param>
    /// <exception cref="VmmException">There is no room for them.</exception>
    public Span<byte> Reserve(int length, int alignment, out uint address)
    {
        int at = (Length + alignment - 1) & -alignment;
        if (length > _area.Length - at)
        {
            throw VmmException.Configuration(
                $"Cannot build the ACPI tables: they need more than the {_area.Length >> 10} KiB that there are for them; give the guest fewer CPUs or devices.");
        }
        _area[Length..(at + length)].Clear();
        Length = at + length;
        address = _start + (uint)at;
        return _area.Slice(at, length);
    }

    /// <summary>Takes the bytes of a table and fills in its header (ACPI 6.5 §5.2.6), except for the checksum.</summary>
    public Span<byte> Table(ReadOnlySpan<byte> signature, byte revision, int length, out uint address)
    {
        Span<byte> b = Reserve(length, 8, out address);
        signature.CopyTo(b);
        BinaryPrimitives.WriteInt32LittleEndian(b[4..], length);
        b[8] = revision;
        OemId.CopyTo(b[10..]);
        OemTableId.CopyTo(b[16..]);
        BinaryPrimitives.WriteUInt32LittleEndian(b[24..], 1);
        CreatorId.CopyTo(b[28..]);
        BinaryPrimitives.WriteUInt32LittleEndian(b[32..], 1);
        return b;
    }

    /// <summary>Sets a finished table's checksum.</summary>
    public static void Seal(Span<byte> table) => table[9] = Checksum(table);

    /// <summary>What a byte that is 0 now must be for the sum of all to be 0.</summary>
    public static byte Checksum(ReadOnlySpan<byte> bytes)
    {
        byte sum = 0;
        foreach (byte b in bytes)
            sum += b;
        return (byte)-sum;
    }
}
