using System.Buffers;
using System.Buffers.Binary;
using Vmm.Core.Memory;

namespace Vmm.Core.Boot.Acpi;

/// <summary>
/// Builds the ACPI tables of a machine (ACPI 6.5 §5.2) in the BIOS area, where a system that boots without firmware looks for
/// them: the RSDP at 0xE0000, then FACS, DSDT, FADT, MADT, MCFG and XSDT.
/// </summary>
/// <remarks>
/// What the guest pays for was chosen to be little: no table that nobody reads, no RSDT beside the XSDT, one FACS pointer, data
/// objects instead of methods wherever the value is constant, no _STA where its default holds.
/// </remarks>
public static class AcpiTables
{
    /// <summary>Where the RSDP is, and the tables begin (§5.2.5.1: from 0xE0000, on a boundary of 16 bytes).</summary>
    public const ulong Start = 0xE_0000;

    /// <summary>The first address past the tables' area.</summary>
    public const ulong End = 0x10_0000;

    private const int AreaSize = (int)(End - Start);
    private const int HeaderSize = 36;
    private const int RsdpSize = 36;
    private const int FacsSize = 64;

    // Processors from here on do not fit the fields of xAPIC entries; 255 means all of them (§5.2.12.2, §5.2.12.7).
    private const uint FirstX2ApicId = 255;

    /// <summary>Builds the tables and writes them to guest memory.</summary>
    /// <returns>The RSDP's address, for the boot protocol.</returns>
    /// <exception cref="VmmException">They do not fit into their area, or there is no RAM.</exception>
    public static ulong Write(GuestMemory memory, AcpiDescription description)
    {
        ArgumentNullException.ThrowIfNull(memory);
        byte[] area = ArrayPool<byte>.Shared.Rent(AreaSize);
        try
        {
            memory.Write(Start, area.AsSpan(0, Build(area, description)));
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(area);
        }
        return Start;
    }

    /// <summary>The bytes that belong at <see cref="Start"/>.</summary>
    /// <exception cref="VmmException">They do not fit into their area.</exception>
    public static byte[] Build(AcpiDescription description)
    {
        byte[] area = ArrayPool<byte>.Shared.Rent(AreaSize);
        try
        {
            return area.AsSpan(0, Build(area, description)).ToArray();
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(area);
        }
    }

    private static int Build(byte[] area, AcpiDescription description)
    {
        ArgumentNullException.ThrowIfNull(description);
        ArgumentOutOfRangeException.ThrowIfZero(description.ApicIds.Count, nameof(description));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(description.S5SleepType, 7, nameof(description));

        area.AsSpan(0, RsdpSize).Clear();
        AcpiArea tables = new(area.AsSpan(0, AreaSize), (uint)Start) { Length = RsdpSize };
        uint facs = Facs(ref tables);
        uint dsdt = Dsdt(ref tables, description);
        uint fadt = Fadt(ref tables, description, facs, dsdt);
        uint madt = Madt(ref tables, description);
        uint mcfg = description.Ecam.IsEmpty ? 0 : Mcfg(ref tables, description.Ecam);
        uint xsdt = Xsdt(ref tables, fadt, madt, mcfg);
        Rsdp(area.AsSpan(0, RsdpSize), xsdt);
        return tables.Length;
    }

    /// <summary>Root System Description Pointer (§5.2.5.3).</summary>
    private static void Rsdp(Span<byte> b, uint xsdt)
    {
        "RSD PTR "u8.CopyTo(b);
        AcpiArea.OemId.CopyTo(b[9..]);
        b[15] = 2;
        BinaryPrimitives.WriteInt32LittleEndian(b[20..], RsdpSize);
        BinaryPrimitives.WriteUInt64LittleEndian(b[24..], xsdt);
        b[8] = AcpiArea.Checksum(b[..20]);
        b[32] = AcpiArea.Checksum(b);
    }

    /// <summary>Firmware ACPI Control Structure (§5.2.10): the global lock, without which systems complain. It has no checksum.</summary>
    private static uint Facs(ref AcpiArea tables)
    {
        Span<byte> b = tables.Reserve(FacsSize, 64, out uint address);
        "FACS"u8.CopyTo(b);
        BinaryPrimitives.WriteInt32LittleEndian(b[4..], FacsSize);
        b[32] = 2;
        return address;
    }

    /// <summary>Differentiated System Description Table (§5.2.11.1); revision 2, for 64-bit integers.</summary>
    private static uint Dsdt(ref AcpiArea tables, AcpiDescription description)
    {
        using AmlWriter writer = new();
        writer.NameObject("\\_S5");
        using (writer.Package(4))
            writer.Integer(description.S5SleepType).Integer(0).Integer(0).Integer(0);
        using (writer.Scope("\\_SB"))
        {
            if (description.DescribeProcessors)
                Processors(writer, description.ApicIds.Count);
            foreach (IAcpiDescribed device in description.Devices)
                device.AppendAml(writer);
        }
        if (writer.OpenBlocks != 0)
            throw new InvalidOperationException("A device left a block of its AML open.");
        Span<byte> b = tables.Table("DSDT"u8, 2, HeaderSize + writer.Length, out uint address);
        writer.Written.CopyTo(b[HeaderSize..]);
        AcpiArea.Seal(b);
        return address;
    }

    /// <summary>Processor devices (§8.4): the _UID refers to the MADT's entry, which tells the rest.</summary>
    private static void Processors(AmlWriter writer, int count)
    {
        Span<char> name = ['C', '0', '0', '0'];
        for (int i = 0; i < count; i++)
        {
            for (int digit = 1, rest = i; digit <= 3; digit++, rest >>= 4)
                name[4 - digit] = "0123456789ABCDEF"[rest & 0xF];
            using (writer.Device(name))
                writer.NameObject("_HID").String("ACPI0007").NameObject("_UID").Integer((ulong)i);
        }
    }

    /// <summary>Fixed ACPI Description Table (§5.2.9), version 6.5.</summary>
    private static uint Fadt(ref AcpiArea tables, AcpiDescription description, uint facs, uint dsdt)
    {
        // WBINVD works; C1 on all processors; no fixed sleep button; no RTC wake status in the fixed registers;
        // the reset register is there. The power button is fixed hardware: its flag stays 0.
        const uint Flags = 1 << 0 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 10;
        const uint TimerValueExtended = 1 << 8;

        Span<byte> b = tables.Table("FACP"u8, 6, 276, out uint address);
        BinaryPrimitives.WriteUInt32LittleEndian(b[36..], facs);
        BinaryPrimitives.WriteUInt32LittleEndian(b[40..], dsdt);
        BinaryPrimitives.WriteUInt16LittleEndian(b[46..], description.SciGsi);
        BinaryPrimitives.WriteUInt32LittleEndian(b[56..], description.PmEventPort);
        BinaryPrimitives.WriteUInt32LittleEndian(b[64..], description.PmControlPort);
        b[88] = 4; // PM1_EVT_LEN
        b[89] = 2; // PM1_CNT_LEN
        BinaryPrimitives.WriteUInt16LittleEndian(b[96..], 0xFFFF); // P_LVL2_LAT: no C2
        BinaryPrimitives.WriteUInt16LittleEndian(b[98..], 0xFFFF); // P_LVL3_LAT: no C3
        b[108] = 0x32; // CENTURY, the CMOS index
        BinaryPrimitives.WriteUInt16LittleEndian(b[109..], (ushort)description.BootArchitecture);
        BinaryPrimitives.WriteUInt32LittleEndian(b[112..], Flags | (description.PmTimerPort != null && description.PmTimerIs32Bit ? TimerValueExtended : 0));
        GenericPort(b[116..], description.ResetPort, 8, 1);
        b[128] = description.ResetValue;
        b[131] = 5; // the minor version
        BinaryPrimitives.WriteUInt64LittleEndian(b[140..], dsdt);
        GenericPort(b[148..], description.PmEventPort, 32, 2);
        GenericPort(b[172..], description.PmControlPort, 16, 2);
        if (description.PmTimerPort is { } timer)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(b[76..], timer);
            b[91] = 4; // PM_TMR_LEN
            GenericPort(b[208..], timer, 32, 3);
        }
        AcpiArea.Seal(b);
        return address;
    }

    /// <summary>Generic Address Structure (§5.2.3.2) of a port.</summary>
    private static void GenericPort(Span<byte> b, ushort port, byte bits, byte accessSize)
    {
        b[0] = 1;
        b[1] = bits;
        b[2] = 0;
        b[3] = accessSize;
        BinaryPrimitives.WriteUInt64LittleEndian(b[4..], port);
    }

    /// <summary>Multiple APIC Description Table (§5.2.12).</summary>
    private static uint Madt(ref AcpiArea tables, AcpiDescription description)
    {
        const uint Enabled = 1;
        const uint PcAtCompatible = 1;
        const ushort LevelActiveHigh = 0x000D;
        const ushort Conforming = 0;

        IReadOnlyList<uint> ids = description.ApicIds;
        int x2Apics = 0;
        for (int i = 0; i < ids.Count; i++)
            x2Apics += NeedsX2Apic(i, ids[i]) ? 1 : 0;
        bool movedTimer = description.TimerGsi != 0;
        bool isaSci = description.SciGsi < 16;
        int size = HeaderSize + 8 + 8 * (ids.Count - x2Apics) + 16 * x2Apics + 12
            + (movedTimer ? 10 : 0) + (isaSci ? 10 : 0) + 6 + (x2Apics != 0 ? 12 : 0);

        Span<byte> table = tables.Table("APIC"u8, 6, size, out uint address);
        BinaryPrimitives.WriteUInt32LittleEndian(table[36..], description.LocalApicAddress);
        BinaryPrimitives.WriteUInt32LittleEndian(table[40..], PcAtCompatible);
        Span<byte> b = table[44..];
        for (int i = 0; i < ids.Count; i++)
        {
            if (NeedsX2Apic(i, ids[i]))
            {
                Entry(ref b, 9, 16, out Span<byte> x2Apic); // Processor Local x2APIC (§5.2.12.12)
                BinaryPrimitives.WriteUInt32LittleEndian(x2Apic[4..], ids[i]);
                BinaryPrimitives.WriteUInt32LittleEndian(x2Apic[8..], Enabled);
                BinaryPrimitives.WriteInt32LittleEndian(x2Apic[12..], i);
            }
            else
            {
                Entry(ref b, 0, 8, out Span<byte> apic); // Processor Local APIC (§5.2.12.2)
                apic[2] = (byte)i;
                apic[3] = (byte)ids[i];
                BinaryPrimitives.WriteUInt32LittleEndian(apic[4..], Enabled);
            }
        }
        Entry(ref b, 1, 12, out Span<byte> ioApic); // I/O APIC (§5.2.12.3), its inputs from GSI 0 on
        ioApic[2] = description.IoApicId;
        BinaryPrimitives.WriteUInt32LittleEndian(ioApic[4..], description.IoApicAddress);
        if (movedTimer)
            Override(ref b, 0, description.TimerGsi, Conforming);
        if (isaSci)
            Override(ref b, (byte)description.SciGsi, description.SciGsi, LevelActiveHigh);
        Entry(ref b, 4, 6, out Span<byte> nmi); // Local APIC NMI (§5.2.12.7): LINT1 of every processor
        nmi[2] = 0xFF;
        nmi[5] = 1;
        if (x2Apics != 0)
        {
            Entry(ref b, 10, 12, out Span<byte> x2Nmi); // Local x2APIC NMI (§5.2.12.13): likewise
            BinaryPrimitives.WriteUInt32LittleEndian(x2Nmi[4..], uint.MaxValue);
            x2Nmi[8] = 1;
        }
        AcpiArea.Seal(table);
        return address;
    }

    private static bool NeedsX2Apic(int uid, uint apicId) => apicId >= FirstX2ApicId || uid >= (int)FirstX2ApicId;

    private static void Entry(ref Span<byte> rest, byte type, byte length, out Span<byte> entry)
    {
        entry = rest[..length];
        entry[0] = type;
        entry[1] = length;
        rest = rest[length..];
    }

    /// <summary>Interrupt Source Override (§5.2.12.5) of an ISA interrupt.</summary>
    private static void Override(ref Span<byte> rest, byte irq, uint gsi, ushort flags)
    {
        Entry(ref rest, 2, 10, out Span<byte> entry);
        entry[3] = irq;
        BinaryPrimitives.WriteUInt32LittleEndian(entry[4..], gsi);
        BinaryPrimitives.WriteUInt16LittleEndian(entry[8..], flags);
    }

    /// <summary>Memory-mapped configuration space (PCI Firmware Specification 3.3 §4.1.2).</summary>
    private static uint Mcfg(ref AcpiArea tables, AddressRange ecam)
    {
        const ulong BusSize = 1 << 20;
        if (ecam.Length % BusSize != 0 || ecam.Length > 256 * BusSize)
            throw new ArgumentException($"The ECAM range {ecam} is not 1 MiB for each of up to 256 buses.", nameof(ecam));
        Span<byte> b = tables.Table("MCFG"u8, 1, HeaderSize + 8 + 16, out uint address);
        BinaryPrimitives.WriteUInt64LittleEndian(b[44..], ecam.Start);
        b[55] = (byte)(ecam.Length / BusSize - 1);
        AcpiArea.Seal(b);
        return address;
    }

    /// <summary>Extended System Description Table (§5.2.8); a table at 0 is left out.</summary>
    private static uint Xsdt(ref AcpiArea tables, params ReadOnlySpan<uint> addresses)
    {
        int count = addresses.Length - addresses.Count(0u);
        Span<byte> b = tables.Table("XSDT"u8, 1, HeaderSize + 8 * count, out uint address);
        int at = HeaderSize;
        foreach (uint table in addresses)
        {
            if (table == 0)
                continue;
            BinaryPrimitives.WriteUInt64LittleEndian(b[at..], table);
            at += 8;
        }
        AcpiArea.Seal(b);
        return address;
    }
}
