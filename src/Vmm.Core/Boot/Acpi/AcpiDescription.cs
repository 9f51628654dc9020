using Vmm.Core.Memory;

namespace Vmm.Core.Boot.Acpi;

/// <summary>Something that the guest finds through a node of its own in the namespace.</summary>
public interface IAcpiDescribed
{
    /// <summary>Writes the node (usually one Device) into the scope \_SB. The same object always writes the same.</summary>
    void AppendAml(AmlWriter writer);
}

/// <summary>What a PC has besides what can be enumerated (ACPI 6.5 §5.2.9.3, IAPC_BOOT_ARCH).</summary>
[Flags]
public enum AcpiBootArchitecture : ushort
{
    /// <summary>None of it.</summary>
    None = 0,

    /// <summary>LEGACY_DEVICES: there are devices on the ISA bus that the system may use, such as a serial port.</summary>
    LegacyDevices = 1 << 0,

    /// <summary>8042: there is a keyboard controller at ports 0x60 and 0x64.</summary>
    KeyboardController = 1 << 1,

    /// <summary>VGA Not Present: nothing answers at the VGA addresses.</summary>
    VgaNotPresent = 1 << 2,

    /// <summary>MSI Not Supported.</summary>
    MsiNotSupported = 1 << 3,

    /// <summary>PCIe ASPM Controls: the system must not turn link power management on.</summary>
    NoAspm = 1 << 4,

    /// <summary>CMOS RTC Not Present.</summary>
    RtcNotPresent = 1 << 5,
}

/// <summary>All that the ACPI tables say of a machine; plain data.</summary>
public sealed record AcpiDescription
{
    /// <summary>The local APIC id of each processor, the boot processor's first; the index is the processor's _UID. At least one.</summary>
    public required IReadOnlyList<uint> ApicIds { get; init; }

    /// <summary>
    /// Whether each processor has a device (ACPI0007) in the DSDT too. Linux takes processors from the MADT and needs the
    /// devices only for idle states and hot-plug, at the cost of setting each of them up.
    /// </summary>
    public bool DescribeProcessors { get; init; } = true;

    /// <summary>The interrupt of power management events, as a global system interrupt; level-triggered, active high.</summary>
    public ushort SciGsi { get; init; } = 9;

    /// <summary>
    /// The input of the IOAPIC that ISA interrupt 0 (the PIT) is wired to. 2 as in a PC; 0 where it is wired straight through, as in
    /// KVM's default routing.
    /// </summary>
    public uint TimerGsi { get; init; } = 2;

    /// <summary>The port of PM1a_EVT_BLK (§4.8.3.1): 2 bytes of status, then 2 bytes of enable bits.</summary>
    public ushort PmEventPort { get; init; } = 0x600;

    /// <summary>The port of PM1a_CNT_BLK (§4.8.3.2.1): 2 bytes. SCI_EN reads as 1 always: there is no SMI to turn it on.</summary>
    public ushort PmControlPort { get; init; } = 0x604;

    /// <summary>
    /// The port of the power management timer (§4.8.3.3), 4 bytes; <see langword="null"/> leaves it out. Linux spends some
    /// milliseconds of its boot on verifying it, and does not need it beside kvm-clock or a TSC.
    /// </summary>
    public ushort? PmTimerPort { get; init; } = 0x608;

    /// <summary>Whether the timer counts 32 bits (TMR_VAL_EXT), not 24.</summary>
    public bool PmTimerIs32Bit { get; init; }

    /// <summary>The port of the reset register (§4.8.3.6), 1 byte.</summary>
    public ushort ResetPort { get; init; } = 0xCF9;

    /// <summary>What resets the machine when it is written there.</summary>
    public byte ResetValue { get; init; } = 0x06;

    /// <summary>SLP_TYPa of the soft-off state S5 (§7.4.2), 0 to 7.</summary>
    public byte S5SleepType { get; init; } = 5;

    /// <summary>IAPC_BOOT_ARCH.</summary>
    public AcpiBootArchitecture BootArchitecture { get; init; } =
        AcpiBootArchitecture.LegacyDevices | AcpiBootArchitecture.KeyboardController | AcpiBootArchitecture.VgaNotPresent;

    /// <summary>
    /// PCI Express configuration space from bus 0 of segment 0 on; a multiple of 1 MiB, at most 256 MiB. Empty where the machine
    /// has no PCI: then there is no MCFG.
    /// </summary>
    public AddressRange Ecam { get; init; } = MemoryLayout.Ecam;

    /// <summary>The local APICs' address.</summary>
    public uint LocalApicAddress { get; init; } = (uint)MemoryLayout.LocalApic.Start;

    /// <summary>The IOAPIC's address.</summary>
    public uint IoApicAddress { get; init; } = (uint)MemoryLayout.IoApic.Start;

    /// <summary>The IOAPIC's id.</summary>
    public byte IoApicId { get; init; }

    /// <summary>What else is in the namespace, in this order.</summary>
    public IReadOnlyList<IAcpiDescribed> Devices { get; init; } = [];
}
