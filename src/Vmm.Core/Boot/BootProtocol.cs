namespace Vmm.Core.Boot;

/// <summary>How a kernel is loaded and entered.</summary>
public enum BootProtocol
{
    /// <summary>
    /// By what the file is: a bzImage is unpacked on the host where that can be done and is started packed where not; an ELF
    /// file is entered by PVH where it has the note and at its 64-bit entry where not.
    /// </summary>
    Auto,

    /// <summary>A bzImage entered at its 64-bit entry (boot protocol 2.12): the guest unpacks the kernel itself, with KASLR.</summary>
    BzImage,

    /// <summary>
    /// A bzImage whose payload is unpacked on the host and entered at its 64-bit entry. Faster; but the guest's unpacker, which
    /// is what moves a kernel to a random address, does not run: the kernel is without KASLR, as if booted with <c>nokaslr</c>.
    /// </summary>
    Unpacked,

    /// <summary>An ELF kernel (or a bzImage's payload) entered in 32-bit protected mode at its PVH entry, without KASLR.</summary>
    Pvh,

    /// <summary>An ELF kernel (or a bzImage's payload) entered at its 64-bit entry with a zero page, without KASLR.</summary>
    Linux64,
}

/// <summary>The CPU mode a kernel is entered in.</summary>
public enum BootEntryMode
{
    /// <summary>64-bit mode with paging (identity-mapped), flat segments, interrupts off; the zero page's address in RSI.</summary>
    Long64,

    /// <summary>32-bit protected mode without paging, flat segments, interrupts off; the start info's address in EBX.</summary>
    Protected32,
}

/// <summary>What the boot CPU's registers must say when a kernel is entered.</summary>
/// <param name="Mode">The CPU mode.</param>
/// <param name="InstructionPointer">The guest-physical address of the first instruction.</param>
/// <param name="BootDataAddress">
/// The guest-physical address of the zero page (to RSI, <see cref="BootEntryMode.Long64"/>) or of the <c>hvm_start_info</c>
/// (to EBX, <see cref="BootEntryMode.Protected32"/>).
/// </param>
public readonly record struct BootEntry(BootEntryMode Mode, ulong InstructionPointer, ulong BootDataAddress);
