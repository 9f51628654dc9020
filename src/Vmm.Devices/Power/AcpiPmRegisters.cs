namespace Vmm.Devices.Power;

/// <summary>ACPI fixed hardware: where it is, and its bits (ACPI 6.5 section 4.8). The FADT has to say the same.</summary>
public static class AcpiPmRegisters
{
    /// <summary>First port: the PM1a event block, 4 bytes (FADT PM1a_EVT_BLK).</summary>
    public const ushort Pm1aEventPort = 0x600;

    /// <summary>PM1a control, 2 bytes (FADT PM1a_CNT_BLK).</summary>
    public const ushort Pm1aControlPort = 0x604;

    /// <summary>PM timer, 4 bytes (FADT PM_TMR_BLK).</summary>
    public const ushort PmTimerPort = 0x608;

    /// <summary>How many ports the device takes, from <see cref="Pm1aEventPort"/>.</summary>
    public const int PortCount = 12;

    /// <summary>ISA interrupt of the SCI (FADT SCI_INT); level-triggered, as MADT has to say.</summary>
    public const int SciIrq = 9;

    /// <summary>Rate of the PM timer in Hz (section 4.8.2.1).</summary>
    public const int PmTimerFrequency = 3_579_545;

    /// <summary>SLP_TYP that powers off: what the DSDT's \_S5 has to name.</summary>
    public const int SleepTypeS5 = 5;

    /// <summary>The reset register, 1 byte (FADT RESET_REG).</summary>
    public const ushort ResetPort = 0xCF9;

    /// <summary>What resets when written to <see cref="ResetPort"/> (FADT RESET_VALUE).</summary>
    public const byte ResetValue = 0x06;

    /// <summary>PM1 status and enable: the PM timer's highest bit changed (section 4.8.3.1.1).</summary>
    public const ushort TimerCarry = 1 << 0;

    /// <summary>PM1 status and enable: global lock released.</summary>
    public const ushort GlobalLock = 1 << 5;

    /// <summary>PM1 status and enable: power button pressed.</summary>
    public const ushort PowerButton = 1 << 8;

    /// <summary>PM1 status and enable: sleep button pressed.</summary>
    public const ushort SleepButton = 1 << 9;

    /// <summary>PM1 status and enable: the clock's alarm.</summary>
    public const ushort RtcAlarm = 1 << 10;

    /// <summary>PM1 status: woken from sleep.</summary>
    public const ushort Wake = 1 << 15;

    /// <summary>PM1 control: the machine is in ACPI mode (section 4.8.3.2.1).</summary>
    public const ushort SciEnable = 1 << 0;

    /// <summary>PM1 control: bus master requests leave C3.</summary>
    public const ushort BusMasterReload = 1 << 1;

    /// <summary>PM1 control: sleep type, bits 12:10.</summary>
    public const int SleepTypeShift = 10;

    /// <summary>PM1 control: enter the sleep state; reads as zero.</summary>
    public const ushort SleepEnable = 1 << 13;
}
