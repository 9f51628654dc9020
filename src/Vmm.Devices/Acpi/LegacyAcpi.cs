using Vmm.Core.Boot.Acpi;

namespace Vmm.Devices.Acpi;

/// <summary>A 16550A-compatible serial port (PNP0501) with eight ports and an edge-triggered ISA interrupt.</summary>
/// <param name="Index">0 for COM1: the _UID, and one less than the number in the node's name. 0 to 3.</param>
/// <param name="Port">Its first port.</param>
/// <param name="Irq">Its ISA interrupt, 0 to 15.</param>
public sealed record SerialPortAcpi(int Index, ushort Port, int Irq) : IAcpiDescribed
{
    /// <inheritdoc/>
    public void AppendAml(AmlWriter writer)
    {
        Span<char> name = ['C', 'O', 'M', (char)('1' + Index)];
        using (writer.Device(name))
        {
            writer.NameObject("_HID").EisaId("PNP0501").NameObject("_UID").Integer((ulong)Index).NameObject("_CRS");
            using (writer.ResourceTemplate())
                writer.IO(Port, 8).IrqNoFlags(Irq);
        }
    }
}

/// <summary>The CMOS real-time clock (PNP0B00) at ports 0x70 and 0x71.</summary>
/// <param name="Irq">Its ISA interrupt; <see langword="null"/> where it raises none.</param>
public sealed record RtcAcpi(int? Irq = 8) : IAcpiDescribed
{
    /// <inheritdoc/>
    public void AppendAml(AmlWriter writer)
    {
        using (writer.Device("RTC"))
        {
            writer.NameObject("_HID").EisaId("PNP0B00").NameObject("_CRS");
            using (writer.ResourceTemplate())
            {
                writer.IO(0x70, 2);
                if (Irq is { } irq)
                    writer.IrqNoFlags(irq);
            }
        }
    }
}

/// <summary>The i8042's keyboard half (PNP0303) at ports 0x60 and 0x64.</summary>
/// <param name="Irq">Its ISA interrupt.</param>
public sealed record KeyboardControllerAcpi(int Irq = 1) : IAcpiDescribed
{
    /// <inheritdoc/>
    public void AppendAml(AmlWriter writer)
    {
        using (writer.Device("PS2K"))
        {
            writer.NameObject("_HID").EisaId("PNP0303").NameObject("_CRS");
            using (writer.ResourceTemplate())
                writer.IO(0x60, 1).IO(0x64, 1).IrqNoFlags(Irq);
        }
    }
}

/// <summary>The pvpanic device (QEMU0001): one port that the guest tells its panic to.</summary>
/// <param name="Port">Its port.</param>
public sealed record PvpanicAcpi(ushort Port = 0x505) : IAcpiDescribed
{
    /// <inheritdoc/>
    public void AppendAml(AmlWriter writer)
    {
        using (writer.Device("PEVT"))
        {
            writer.NameObject("_HID").String("QEMU0001").NameObject("_CRS");
            using (writer.ResourceTemplate())
                writer.IO(Port, 1);
        }
    }
}
