using Vmm.Core.Boot;

namespace Vmm.Core.Memory;

/// <summary>
/// Where everything is in the guest's physical address space: a pure function of the sizes asked for, so that a restored or
/// migrated guest finds everything where it was.
/// </summary>
/// <remarks>
/// <code>
/// 0x0000_0000  RAM, up to 3 GiB
/// 0xC000_0000  boot timer page            | the hole for 32-bit devices, always 1 GiB,
/// 0xC000_1000  virtio-mmio slots          | whatever the size of RAM
/// 0xD000_0000  PCI window for 32-bit BARs |
/// 0xE000_0000  PCI ECAM, buses 0 to 255   |
/// 0xFEC0_0000  IOAPIC                     |
/// 0xFEE0_0000  local APICs                |
/// 0xFEFF_C000  KVM's identity map and TSS |
/// 0xFFC0_0000  firmware                   |
/// 4 GiB        the rest of RAM
/// above, at a multiple of 1 GiB: room to plug memory in
/// above, at a multiple of 1 GiB: persistent memory, each device at a multiple of 128 MiB
/// above, naturally aligned: PCI window for 64-bit BARs, at most 512 GiB
/// </code>
/// </remarks>
public sealed record MemoryLayout
{
    /// <summary>The unit of RAM sizes and of memory slots, in bytes.</summary>
    public const ulong PageSize = 0x1000;

    /// <summary>The least RAM that a guest may have, in bytes (64 MiB): what a small Linux kernel with its initramfs needs.</summary>
    public const ulong MinimumRamSize = 64UL << 20;

    /// <summary>Where the hole for 32-bit devices begins: RAM below 4 GiB ends here at the latest.</summary>
    public const ulong MmioHoleStart = 0xC000_0000;

    /// <summary>Where the hole ends and high RAM begins.</summary>
    public const ulong HighRamStart = 1UL << 32;

    /// <summary>The boot timer's page; the address is the one that Firecracker's guest images write to.</summary>
    public static readonly AddressRange BootTimer = new(0xC000_0000, PageSize);

    /// <summary>The virtio-mmio slots, one page each; see <see cref="VirtioMmioSlot"/>.</summary>
    public static readonly AddressRange VirtioMmio = new(0xC000_1000, 0xD000_0000 - 0xC000_1000);

    /// <summary>The window for 32-bit PCI BARs.</summary>
    public static readonly AddressRange Pci32 = new(0xD000_0000, 0x1000_0000);

    /// <summary>PCI Express configuration space, 1 MiB for each of the buses 0 to 255 (PCIe 5.0 §7.2.2).</summary>
    public static readonly AddressRange Ecam = new(0xE000_0000, 0x1000_0000);

    /// <summary>The I/O APIC, where KVM's is.</summary>
    public static readonly AddressRange IoApic = new(0xFEC0_0000, PageSize);

    /// <summary>The local APICs, where a processor has them after reset (Intel SDM volume 3 §11.4.1).</summary>
    public static readonly AddressRange LocalApic = new(0xFEE0_0000, 0x10_0000);

    /// <summary>The page for KVM_SET_IDENTITY_MAP_ADDR.</summary>
    public static readonly AddressRange KvmIdentityMap = new(0xFEFF_C000, PageSize);

    /// <summary>The three pages for KVM_SET_TSS_ADDR.</summary>
    public static readonly AddressRange KvmTss = new(0xFEFF_D000, 3 * PageSize);

    /// <summary>Firmware, up to the reset vector below 4 GiB.</summary>
    public static readonly AddressRange Firmware = new(0xFFC0_0000, 0x40_0000);

    /// <summary>The number of virtio-mmio slots that there is room for.</summary>
    public static readonly int VirtioMmioSlots = (int)(VirtioMmio.Length / PageSize);

    /// <summary>The largest window for 64-bit PCI BARs, in bytes: many graphics cards' worth, and still below 1 TiB for a small guest.</summary>
    public const ulong MaximumPci64Size = 512 * GiB;

    /// <summary>The unit of the length of persistent memory, in bytes: a large page, and the least that Linux maps of it (a subsection).</summary>
    public const ulong PmemUnit = 2UL << 20;

    /// <summary>
    /// What a persistent memory device's place is a multiple of, in bytes: a section of Linux's memory map on x86-64. Two devices, or a
    /// device and RAM, in one section make Linux look closer at each page of it (ZONE_DEVICE), and older kernels refuse them.
    /// </summary>
    public const ulong PmemAlignment = 128UL << 20;

    private const ulong GiB = 1UL << 30;

    // Below this lie conventional memory's usable part; above, up to 1 MiB, the EBDA, the ACPI tables and the BIOS area.
    private const ulong ConventionalEnd = 0x9_FC00;
    private const ulong ExtendedStart = 0x10_0000;

    private MemoryLayout()
    {
    }

    /// <summary>All RAM at boot, in bytes.</summary>
    public required ulong RamSize { get; init; }

    /// <summary>The width of a guest-physical address that the layout was made for, in bits (32 to 52).</summary>
    public required int PhysicalAddressBits { get; init; }

    /// <summary>RAM, lowest first: one range from 0, and a second from 4 GiB where there is more than 3 GiB.</summary>
    public required IReadOnlyList<AddressRange> Ram { get; init; }

    /// <summary>Where memory can be plugged in; a multiple of 1 GiB in place and length; empty when none was asked for.</summary>
    public required AddressRange Hotplug { get; init; }

    /// <summary>Persistent memory devices, in the order asked for; each at a multiple of <see cref="PmemAlignment"/>.</summary>
    public required IReadOnlyList<AddressRange> Pmem { get; init; }

    /// <summary>
    /// The window for 64-bit PCI BARs: the largest power of two that fits above everything else, at most
    /// <see cref="MaximumPci64Size"/>, aligned to its own size so that any BAR up to that size can be placed. Empty where less
    /// than 1 GiB of address space is left: then all BARs share <see cref="Pci32"/>.
    /// </summary>
    public required AddressRange Pci64 { get; init; }

    /// <summary>Computes the layout.</summary>
    /// <param name="ramSize">Bytes; at least <see cref="MinimumRamSize"/> and a multiple of <see cref="PageSize"/>.</param>
    /// <param name="physicalAddressBits">What CPUID 0x80000008 gives the guest; more than 52 counts as 52, the architecture's limit.</param>
    /// <param name="hotplugSize">Bytes that may be plugged in later; a multiple of <see cref="PageSize"/>.</param>
    /// <param name="pmemSizes">Bytes of each persistent memory device; multiples of <see cref="PmemUnit"/>, above 0.</param>
    /// <exception cref="VmmException">A size is too small, not aligned, or more than the address space holds.</exception>
    public static MemoryLayout Create(ulong ramSize, int physicalAddressBits, ulong hotplugSize = 0, IReadOnlyList<ulong>? pmemSizes = null)
    {
        if (ramSize < MinimumRamSize)
            throw VmmException.Configuration($"Cannot give the guest {Describe(ramSize)} of memory: the least is {Describe(MinimumRamSize)}; give it more (--memory size=).");
        if (ramSize % PageSize != 0)
            throw VmmException.Configuration($"Cannot give the guest {ramSize} bytes of memory: it is not a multiple of the page size, {PageSize} bytes; round it (--memory size=).");
        if (hotplugSize % PageSize != 0)
            throw VmmException.Configuration($"Cannot keep room to plug in {hotplugSize} bytes of memory: it is not a multiple of the page size, {PageSize} bytes; round it.");
        if (physicalAddressBits < 32)
            throw VmmException.Host($"Cannot lay out the guest's memory: this host's KVM reports physical addresses of {physicalAddressBits} bits, and at least 32 are needed.");
        int bits = Math.Min(physicalAddressBits, 52);
        ulong limit = 1UL << bits;

        ulong lowSize = Math.Min(ramSize, MmioHoleStart);
        ulong highSize = ramSize - lowSize;
        if (highSize > limit - HighRamStart)
        {
            throw VmmException.Configuration(
                $"Cannot give the guest {Describe(ramSize)} of memory: with physical addresses of {bits} bits there is room for {Describe(MmioHoleStart + (limit - HighRamStart))}; give it less (--memory size=).");
        }

        ulong top = AlignUp(HighRamStart + highSize, GiB);
        // The order of these comparisons keeps a hostile size from wrapping around: limit - top is at most 2^52.
        if (hotplugSize > limit - top || AlignUp(hotplugSize, GiB) > limit - top)
        {
            throw VmmException.Configuration(
                $"Cannot keep room to plug in {Describe(hotplugSize)} of memory: with physical addresses of {bits} bits and {Describe(ramSize)} of memory at boot there is room for {Describe(limit - top)}; ask for less.");
        }
        AddressRange hotplug = new(top, AlignUp(hotplugSize, GiB));
        AddressRange[] pmem = PlacePmem(hotplug.End, limit, pmemSizes ?? []);

        return new MemoryLayout
        {
            RamSize = ramSize,
            PhysicalAddressBits = bits,
            Ram = highSize == 0 ? [new AddressRange(0, lowSize)] : [new AddressRange(0, lowSize), new AddressRange(HighRamStart, highSize)],
            Hotplug = hotplug,
            Pmem = pmem,
            Pci64 = PlacePci64(pmem.Length == 0 ? hotplug.End : AlignUp(pmem[^1].End, GiB), limit),
        };
    }

    /// <summary>The page of a virtio-mmio slot.</summary>
    /// <param name="index">From 0 to <see cref="VirtioMmioSlots"/> - 1.</param>
    /// <exception cref="ArgumentOutOfRangeException">There is no such slot.</exception>
    public static AddressRange VirtioMmioSlot(int index)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(index, VirtioMmioSlots);
        return new AddressRange(VirtioMmio.Start + (ulong)index * PageSize, PageSize);
    }

    /// <summary>Every range with its name, lowest first; they are disjoint, and empty ones are left out.</summary>
    public IReadOnlyList<(string Name, AddressRange Range)> Ranges
    {
        get
        {
            List<(string Name, AddressRange Range)> all = [("RAM", Ram[0])];
            all.Add(("boot timer", BootTimer));
            all.Add(("virtio-mmio", VirtioMmio));
            all.Add(("PCI 32-bit window", Pci32));
            all.Add(("PCI ECAM", Ecam));
            all.Add(("IOAPIC", IoApic));
            all.Add(("local APIC", LocalApic));
            all.Add(("KVM identity map", KvmIdentityMap));
            all.Add(("KVM TSS", KvmTss));
            all.Add(("firmware", Firmware));
            if (Ram.Count > 1)
                all.Add(("RAM", Ram[1]));
            if (!Hotplug.IsEmpty)
                all.Add(("memory hot-plug window", Hotplug));
            foreach (AddressRange pmem in Pmem)
                all.Add(("persistent memory", pmem));
            if (!Pci64.IsEmpty)
                all.Add(("PCI 64-bit window", Pci64));
            return all;
        }
    }

    /// <summary>
    /// The memory map for the guest, lowest first and disjoint: RAM, except 0x9FC00 to 1 MiB, where the EBDA, the ACPI tables
    /// (from 0xE0000) and the BIOS area are; and what in the hole is neither RAM nor free for devices. ECAM must be reserved
    /// here or Linux does not use it.
    /// </summary>
    public IReadOnlyList<E820Entry> CreateE820()
    {
        List<E820Entry> map =
        [
            new(0, ConventionalEnd, E820Type.Usable),
            new(ConventionalEnd, ExtendedStart - ConventionalEnd, E820Type.Reserved),
            new(ExtendedStart, Ram[0].Length - ExtendedStart, E820Type.Usable),
            new(Ecam.Start, Ecam.Length, E820Type.Reserved),
            new(KvmIdentityMap.Start, KvmIdentityMap.Length + KvmTss.Length, E820Type.Reserved),
        ];
        if (Ram.Count > 1)
            map.Add(new E820Entry(Ram[1].Start, Ram[1].Length, E820Type.Usable));
        return map;
    }

    private static AddressRange[] PlacePmem(ulong from, ulong limit, IReadOnlyList<ulong> sizes)
    {
        var places = new AddressRange[sizes.Count];
        for (int i = 0; i < places.Length; i++)
        {
            ulong start = AlignUp(from, PmemAlignment);
            if (sizes[i] == 0 || sizes[i] % PmemUnit != 0)
                throw VmmException.Configuration($"Cannot place {sizes[i]} bytes of persistent memory: it is not a multiple of {Describe(PmemUnit)}, or empty; round it.");
            if (start > limit || sizes[i] > limit - start)
            {
                throw VmmException.Configuration(
                    $"Cannot place {Describe(sizes[i])} of persistent memory: there is room for {Describe(start > limit ? 0 : limit - start)} above the guest's memory; use a smaller file, or give the guest less memory.");
            }
            places[i] = new AddressRange(start, sizes[i]);
            from = places[i].End;
        }
        return places;
    }

    private static AddressRange PlacePci64(ulong from, ulong limit)
    {
        for (ulong size = MaximumPci64Size; size >= GiB; size >>= 1)
        {
            ulong start = AlignUp(from, size);
            if (start <= limit && size <= limit - start)
                return new AddressRange(start, size);
        }
        return new AddressRange(from, 0);
    }

    // Callers keep value below 2^63.
    private static ulong AlignUp(ulong value, ulong alignment) => (value + (alignment - 1)) & ~(alignment - 1);

    private static string Describe(ulong bytes) => bytes switch
    {
        >= GiB when bytes % GiB == 0 => $"{bytes / GiB} GiB",
        >= 1UL << 20 => $"{bytes >> 20} MiB",
        >= 1UL << 10 => $"{bytes >> 10} KiB",
        _ => $"{bytes} bytes",
    };
}
