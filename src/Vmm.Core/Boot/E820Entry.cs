namespace Vmm.Core.Boot;

/// <summary>What a range of the memory map is (ACPI 6.5 §15, table 15.1).</summary>
public enum E820Type : uint
{
    /// <summary>RAM for the guest to use (AddressRangeMemory).</summary>
    Usable = 1,

    /// <summary>Not for the guest's general use (AddressRangeReserved).</summary>
    Reserved = 2,

    /// <summary>ACPI tables, usable once they have been read (AddressRangeACPI).</summary>
    AcpiReclaimable = 3,

    /// <summary>ACPI tables that must be kept (AddressRangeNVS).</summary>
    AcpiNvs = 4,

    /// <summary>RAM with errors (AddressRangeUnusable).</summary>
    Unusable = 5,
}

/// <summary>One range of the memory map that the guest is given at boot.</summary>
/// <param name="Start">The first guest-physical address.</param>
/// <param name="Length">Bytes, at least 1.</param>
/// <param name="Type">What is there.</param>
public readonly record struct E820Entry(ulong Start, ulong Length, E820Type Type)
{
    /// <summary>The first address past the range.</summary>
    public ulong End => Start + Length;
}
