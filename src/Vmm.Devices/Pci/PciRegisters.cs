namespace Vmm.Devices.Pci;

/// <summary>Configuration space of a type 0 function (PCI Local Bus 3.0 section 6.1; PCI Express Base 5.0 section 7.5.1).</summary>
public static class PciRegisters
{
    /// <summary>Bytes of configuration space that ports reach (PCI Local Bus 3.0 section 3.2.2.3.2).</summary>
    public const int LegacySize = 256;

    /// <summary>Bytes of configuration space that ECAM reaches (PCI Express Base 5.0 section 7.2.2).</summary>
    public const int Size = 4096;

    /// <summary>Devices on a bus.</summary>
    public const int DeviceCount = 32;

    /// <summary>Functions of a device.</summary>
    public const int FunctionCount = 8;

    /// <summary>Base address registers of a type 0 function.</summary>
    public const int BarCount = 6;

    /// <summary>CONFIG_ADDRESS; CONFIG_DATA follows at 0xCFC.</summary>
    public const ushort ConfigAddressPort = 0xCF8;

    /// <summary>How many ports configuration mechanism #1 takes, from <see cref="ConfigAddressPort"/>.</summary>
    public const int ConfigPortCount = 8;

    /// <summary>Vendor, 16 bits.</summary>
    public const int VendorId = 0x00;

    /// <summary>Device, 16 bits.</summary>
    public const int DeviceId = 0x02;

    /// <summary>Command, 16 bits.</summary>
    public const int Command = 0x04;

    /// <summary>Status, 16 bits.</summary>
    public const int Status = 0x06;

    /// <summary>Revision; the three bytes of the class code follow.</summary>
    public const int RevisionId = 0x08;

    /// <summary>Cache line size, for software's use only.</summary>
    public const int CacheLineSize = 0x0C;

    /// <summary>Header type; bit 7 of function 0 tells of more functions.</summary>
    public const int HeaderType = 0x0E;

    /// <summary>The first of six base address registers, 32 bits each.</summary>
    public const int Bar0 = 0x10;

    /// <summary>Subsystem vendor, 16 bits; the subsystem follows.</summary>
    public const int SubsystemVendorId = 0x2C;

    /// <summary>Offset of the first capability.</summary>
    public const int CapabilitiesPointer = 0x34;

    /// <summary>Interrupt line, for software's use only.</summary>
    public const int InterruptLine = 0x3C;

    /// <summary>Interrupt pin: 0 for none, 1 to 4 for INTA to INTD.</summary>
    public const int InterruptPin = 0x3D;

    /// <summary>First byte that capabilities may take.</summary>
    public const int FirstCapability = 0x40;

    /// <summary>First extended capability.</summary>
    public const int FirstExtendedCapability = 0x100;

    /// <summary>Command: answers on I/O ports.</summary>
    public const ushort CommandIo = 1 << 0;

    /// <summary>Command: answers in memory.</summary>
    public const ushort CommandMemory = 1 << 1;

    /// <summary>Command: may reach guest memory and send MSIs.</summary>
    public const ushort CommandBusMaster = 1 << 2;

    /// <summary>Command: reports parity errors.</summary>
    public const ushort CommandParity = 1 << 6;

    /// <summary>Command: reports system errors.</summary>
    public const ushort CommandSerr = 1 << 8;

    /// <summary>Command: INTx is off.</summary>
    public const ushort CommandInterruptDisable = 1 << 10;

    /// <summary>Status: INTx is pending.</summary>
    public const ushort StatusInterrupt = 1 << 3;

    /// <summary>Status: there is a list of capabilities.</summary>
    public const ushort StatusCapabilities = 1 << 4;

    /// <summary>Header type: the device has more functions than 0.</summary>
    public const byte HeaderMultiFunction = 0x80;
}
