namespace Vmm.Devices.Pci;

/// <summary>What a function is.</summary>
/// <param name="VendorId">Who made it.</param>
/// <param name="DeviceId">What it is.</param>
/// <param name="ClassCode">Class, subclass and programming interface, 24 bits.</param>
/// <param name="RevisionId">Revision.</param>
/// <param name="SubsystemVendorId">Who made what it is part of.</param>
/// <param name="SubsystemId">What it is part of.</param>
/// <param name="InterruptPin">0 for none, 1 to 4 for INTA to INTD.</param>
public readonly record struct PciIdentity(
    ushort VendorId,
    ushort DeviceId,
    uint ClassCode,
    byte RevisionId = 0,
    ushort SubsystemVendorId = 0,
    ushort SubsystemId = 0,
    byte InterruptPin = 0);

/// <summary>What a base address register asks for (PCI Local Bus 3.0 section 6.2.5.1).</summary>
public enum PciBarKind
{
    /// <summary>The register is not there, or is the upper half of a 64-bit one.</summary>
    None,

    /// <summary>I/O ports.</summary>
    Io,

    /// <summary>Memory below 4 GiB.</summary>
    Memory32,

    /// <summary>Memory anywhere; takes this register and the next.</summary>
    Memory64,
}

/// <summary>A base address register as the guest has set it.</summary>
/// <param name="Kind">What it asks for.</param>
/// <param name="Address">Where the guest put it: any multiple of the size, sane or not.</param>
/// <param name="Size">Bytes or ports.</param>
/// <param name="Enabled">The command register lets the function answer there.</param>
public readonly record struct PciBar(PciBarKind Kind, ulong Address, ulong Size, bool Enabled);

/// <summary>What a write to configuration space touched that the function may have to act on.</summary>
[Flags]
public enum PciConfigurationChanges
{
    /// <summary>Nothing of these.</summary>
    None = 0,

    /// <summary>The command register changed.</summary>
    Command = 1,

    /// <summary>A base address register changed.</summary>
    Bars = 2,

    /// <summary>Something in a capability was written, be it to the same value.</summary>
    Capabilities = 4,
}
