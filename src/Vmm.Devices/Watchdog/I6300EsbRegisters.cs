using Vmm.Devices.Pci;

namespace Vmm.Devices.Watchdog;

/// <summary>The watchdog timer of Intel's 6300ESB I/O controller hub (Intel 300641-004, chapter "Watchdog Timer").</summary>
internal static class I6300EsbRegisters
{
    /// <summary>A system peripheral of no class of its own; Linux finds it by vendor and device.</summary>
    internal static readonly PciIdentity Identity = new(VendorId: 0x8086, DeviceId: 0x25AB, ClassCode: 0x088000);

    /// <summary>Bytes of the memory-mapped registers, at BAR 0.</summary>
    internal const int Length = 16;

    /// <summary>WDT configuration register, 16 bits, in PCI configuration space.</summary>
    internal const int Configuration = 0x60;

    /// <summary>WDT_INT_TYPE, two bits: 0 for an interrupt at the end of the first stage, 2 for an SMI, 3 for nothing.</summary>
    internal const ushort InterruptTypeMask = 3;

    /// <summary>WDT_PRE_SEL: the timer counts at about 1 MHz instead of 1 kHz.</summary>
    internal const ushort FastClock = 1 << 2;

    /// <summary>WDT_OUTPUT: nothing happens at the end of the second stage.</summary>
    internal const ushort OutputDisabled = 1 << 5;

    /// <summary>WDT lock register, 8 bits, in PCI configuration space.</summary>
    internal const int Lock = 0x68;

    /// <summary>WDT_LOCK: this register cannot be changed until a reset.</summary>
    internal const byte Locked = 1 << 0;

    /// <summary>WDT_ENABLE: the timer counts.</summary>
    internal const byte Enable = 1 << 1;

    /// <summary>WDT_TOUT_CNF: free-running; it begins again after the second stage.</summary>
    internal const byte FreeRunning = 1 << 2;

    /// <summary>Preload value 1, 20 bits: how long the first stage takes, in units of the clock.</summary>
    internal const int Preload1 = 0x00;

    /// <summary>Preload value 2, 20 bits.</summary>
    internal const int Preload2 = 0x04;

    /// <summary>The bits of a preload value, all set after a reset.</summary>
    internal const uint PreloadMask = 0xF_FFFF;

    /// <summary>General interrupt status; bit 0, cleared by writing it: the first stage's interrupt is active.</summary>
    internal const int InterruptStatus = 0x08;

    /// <summary>The first stage's interrupt.</summary>
    internal const uint InterruptActive = 1 << 0;

    /// <summary>Reload register, 16 bits.</summary>
    internal const int Reload = 0x0C;

    /// <summary>WDT_RELOAD: begins the first stage anew.</summary>
    internal const uint ReloadNow = 1 << 8;

    /// <summary>WDT_TIMEOUT, cleared by writing it: the second stage expired. Not changed by a reset, which it tells the cause of.</summary>
    internal const uint TimedOut = 1 << 9;

    /// <summary>The first write of the sequence that allows one write of a preload value or the reload register.</summary>
    internal const uint Unlock1 = 0x80;

    /// <summary>The second.</summary>
    internal const uint Unlock2 = 0x86;

    /// <summary>The PCI clock, in MHz, that is divided by 2^15 or, fast, by 2^5.</summary>
    internal const int PciClockMegahertz = 33;
}
