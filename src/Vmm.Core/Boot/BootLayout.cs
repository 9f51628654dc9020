namespace Vmm.Core.Boot;

/// <summary>
/// Where the loader puts things in guest-physical memory: the one place for these addresses. All are in the first megabyte's
/// RAM, which a kernel saves or copies before it reuses it. 0x500-0x5FFF and 0x9000-0xFFFF belong to whoever sets up the CPU
/// (GDT and page tables).
/// </summary>
public static class BootLayout
{
    /// <summary>The PVH <c>hvm_start_info</c> (56 bytes); the module list and the memory map follow in the same page.</summary>
    public const ulong HvmStartInfo = 0x6000;

    /// <summary>The PVH module list: one <c>hvm_modlist_entry</c> of 32 bytes.</summary>
    public const ulong HvmModuleList = 0x6040;

    /// <summary>The PVH memory map: <c>hvm_memmap_table_entry</c> of 24 bytes each, at most <see cref="MaximumMemoryMapEntries"/>.</summary>
    public const ulong HvmMemoryMap = 0x6060;

    /// <summary>The zero page (<c>struct boot_params</c>, 4096 bytes).</summary>
    public const ulong ZeroPage = 0x7000;

    /// <summary>The size of the zero page, in bytes.</summary>
    public const int ZeroPageSize = 0x1000;

    /// <summary>The command line, ended by a NUL.</summary>
    public const ulong CommandLine = 0x20000;

    /// <summary>Room for the command line with its NUL, in bytes.</summary>
    public const int CommandLineCapacity = 0x10000;

    /// <summary>The lowest address for a kernel or an initramfs: below are the structures above, video memory and ROMs.</summary>
    public const ulong HighMemoryStart = 0x100000;

    /// <summary>The first address that needs more than 32 bits.</summary>
    public const ulong FourGiB = 0x1_0000_0000;

    /// <summary>A page, in bytes: the alignment of an initramfs.</summary>
    public const ulong PageSize = 0x1000;

    /// <summary>
    /// Where the payload of a usual vmlinux file has its first segment (its ELF header sits in a page of the largest size, 2 MiB).
    /// Unpacking so much below the kernel's address puts that segment, and mostly all others, in place at once.
    /// </summary>
    public const ulong UsualFirstSegmentOffset = 0x200000;

    /// <summary>What the zero page has room for (<c>E820_MAX_ENTRIES_ZEROPAGE</c>); the PVH map is held to the same.</summary>
    public const int MaximumMemoryMapEntries = 128;

    /// <summary>
    /// The longest command line, in bytes without its NUL, of an x86 Linux whose setup header is not at hand: its
    /// <c>COMMAND_LINE_SIZE</c> is 2048.
    /// </summary>
    public const int LinuxCommandLineLimit = 2047;

    /// <summary>
    /// A kernel payload that claims to unpack to more is refused, in bytes: distributions' kernels unpack to 30-80 MiB, debug
    /// builds to 200 MiB, and a corrupt size must not make the host reserve gigabytes.
    /// </summary>
    public const uint MaximumUnpackedSize = 1u << 30;
}
