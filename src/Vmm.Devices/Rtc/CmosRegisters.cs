namespace Vmm.Devices.Rtc;

/// <summary>
/// Registers of the MC146818 clock (Motorola MC146818 data sheet, "Address map" and "Registers") and the bytes above them that PC
/// firmware settled on.
/// </summary>
public static class CmosRegisters
{
    /// <summary>Index port; the data port follows it.</summary>
    public const ushort IndexPort = 0x70;

    /// <summary>How many ports the device takes.</summary>
    public const int PortCount = 2;

    /// <summary>ISA interrupt of the clock.</summary>
    public const int Irq = 8;

    /// <summary>Bytes of clock registers and RAM.</summary>
    public const int Size = 128;

    /// <summary>Seconds, 0 to 59.</summary>
    public const int Seconds = 0x00;

    /// <summary>Seconds of the alarm.</summary>
    public const int SecondsAlarm = 0x01;

    /// <summary>Minutes, 0 to 59.</summary>
    public const int Minutes = 0x02;

    /// <summary>Minutes of the alarm.</summary>
    public const int MinutesAlarm = 0x03;

    /// <summary>Hours, 0 to 23, or 1 to 12 with bit 7 for the afternoon.</summary>
    public const int Hours = 0x04;

    /// <summary>Hours of the alarm.</summary>
    public const int HoursAlarm = 0x05;

    /// <summary>Day of the week, 1 (Sunday) to 7.</summary>
    public const int WeekDay = 0x06;

    /// <summary>Day of the month, 1 to 31.</summary>
    public const int DayOfMonth = 0x07;

    /// <summary>Month, 1 to 12.</summary>
    public const int Month = 0x08;

    /// <summary>Year of the century, 0 to 99.</summary>
    public const int Year = 0x09;

    /// <summary>Register A: update in progress, divider, rate.</summary>
    public const int A = 0x0A;

    /// <summary>Register B: set, interrupt enables, formats.</summary>
    public const int B = 0x0B;

    /// <summary>Register C: interrupt flags; reading clears them.</summary>
    public const int C = 0x0C;

    /// <summary>Register D: valid RAM and time.</summary>
    public const int D = 0x0D;

    /// <summary>Memory below 1 MiB in KiB, low byte; the high byte follows.</summary>
    public const int BaseMemory = 0x15;

    /// <summary>Memory above 1 MiB in KiB up to 65535, low byte; the high byte follows.</summary>
    public const int ExtendedMemory = 0x17;

    /// <summary>The same as <see cref="ExtendedMemory"/>, as the firmware found it.</summary>
    public const int ExtendedMemoryFound = 0x30;

    /// <summary>Century, 19 or 20; the FADT names it to operating systems.</summary>
    public const int Century = 0x32;

    /// <summary>Memory from 16 MiB to 4 GiB in units of 64 KiB, low byte; the high byte follows.</summary>
    public const int MemoryAbove16MiB = 0x34;

    /// <summary>Memory above 4 GiB in units of 64 KiB, three bytes, the lowest first.</summary>
    public const int MemoryAbove4GiB = 0x5B;

    /// <summary>A: update in progress. Never seen set: the registers are always consistent.</summary>
    public const byte AUip = 0x80;

    /// <summary>A: divider. 0b010 counts, 0b11x holds the divider in reset.</summary>
    public const byte ADivider = 0x70;

    /// <summary>B: the time is being set; updates stop.</summary>
    public const byte BSet = 0x80;

    /// <summary>B: periodic interrupt enable.</summary>
    public const byte BPie = 0x40;

    /// <summary>B: alarm interrupt enable.</summary>
    public const byte BAie = 0x20;

    /// <summary>B: update-ended interrupt enable.</summary>
    public const byte BUie = 0x10;

    /// <summary>B: binary instead of BCD.</summary>
    public const byte BDm = 0x04;

    /// <summary>B: 24 instead of 12 hours.</summary>
    public const byte B2412 = 0x02;

    /// <summary>C: the interrupt line is asserted.</summary>
    public const byte CIrqf = 0x80;

    /// <summary>C: periodic.</summary>
    public const byte CPf = 0x40;

    /// <summary>C: alarm.</summary>
    public const byte CAf = 0x20;

    /// <summary>C: update ended.</summary>
    public const byte CUf = 0x10;

    /// <summary>D: RAM and time are valid.</summary>
    public const byte DVrt = 0x80;
}
