using FsCheck;
using FsCheck.Fluent;
using Vmm.Core.Boot;
using Vmm.Core.Memory;

namespace Vmm.Core.Tests.Memory;

public sealed class MemoryLayoutTests
{
    private const ulong MiB = 1UL << 20;
    private const ulong GiB = 1UL << 30;
    private const ulong TiB = 1UL << 40;

    private static readonly Config Fixed = Config.QuickThrowOnFailure.WithMaxTest(2000).WithReplay(0x5eed_0001, 0x9e37_79b9_7f4a_7c15);

    /// <summary>Sizes in pages from 64 MiB to 1 TiB, with as many small ones as large ones, and those around the hole.</summary>
    private static readonly Gen<ulong> RamSizes = Gen.OneOf(
        from bits in Gen.Choose(26, 39)
        from fraction in Gen.Choose(0, int.MaxValue)
        select ((1UL << bits) + (ulong)((double)fraction / int.MaxValue * (1UL << bits))) & ~(MemoryLayout.PageSize - 1),
        from pages in Gen.Choose(-3, 3)
        from gibs in Gen.Elements(1, 3, 4, 5, 61, 1023)
        select (ulong)gibs * GiB + (ulong)((long)MemoryLayout.PageSize * pages));

    private static readonly Gen<ulong> HotplugSizes = Gen.OneOf(
        Gen.Constant(0UL),
        Gen.Choose(1, 1 << 26).Select(pages => (ulong)pages * MemoryLayout.PageSize));

    private static readonly Gen<ulong[]> PmemSizes = Gen.OneOf(
        Gen.Constant(Array.Empty<ulong>()),
        from count in Gen.Choose(1, 5)
        from sizes in Gen.OneOf(Gen.Choose(1, 70), Gen.Choose(1, 1 << 16)).ArrayOf(count)
        select sizes.Select(units => (ulong)units * MemoryLayout.PmemUnit).ToArray());

    private static void ForEveryLayout(Func<MemoryLayout, ulong, bool> holds) => ForEveryLayout((layout, hotplug, _) => holds(layout, hotplug));

    private static void ForEveryLayout(Func<MemoryLayout, ulong, ulong[], bool> holds)
    {
        Gen<(ulong Ram, int Bits, ulong Hotplug, ulong[] Pmem)> cases =
            from ram in RamSizes
            from bits in Gen.Choose(42, 52)
            from hotplug in HotplugSizes
            from pmem in PmemSizes
            select (ram, bits, hotplug, pmem);
        Check.One(Fixed, Prop.ForAll(cases.ToArbitrary(), c => holds(MemoryLayout.Create(c.Ram, c.Bits, c.Hotplug, c.Pmem), c.Hotplug, c.Pmem)));
    }

    [Fact]
    public void Persistent_memory_shares_no_section_of_linux_with_anything() => ForEveryLayout((layout, _, sizes) =>
    {
        ulong from = Math.Max(layout.Hotplug.End, MemoryLayout.HighRamStart);
        if (!layout.Pmem.Select(range => range.Length).SequenceEqual(sizes))
            return false;
        foreach (AddressRange range in layout.Pmem)
        {
            // Whatever is before it ends in an earlier section.
            if (range.Start % MemoryLayout.PmemAlignment != 0 || range.Start < from)
                return false;
            from = range.End;
        }
        return layout.Pci64.IsEmpty || layout.Pci64.Start >= from;
    });

    [Fact]
    public void Persistent_memory_follows_the_hot_plug_window_in_order()
    {
        MemoryLayout layout = MemoryLayout.Create(128 * MiB, 40, GiB, [2 * MiB, 130 * MiB, 4 * MiB]);
        Assert.Equal(
            [new AddressRange(5 * GiB, 2 * MiB), new AddressRange(5 * GiB + 128 * MiB, 130 * MiB), new AddressRange(5 * GiB + 384 * MiB, 4 * MiB)],
            layout.Pmem);
        Assert.Equal(3, layout.Ranges.Count(r => r.Name == "persistent memory"));
        Assert.DoesNotContain(layout.CreateE820(), entry => entry.Start >= 4 * GiB);
    }

    [Theory]
    [InlineData(36, 0UL, "not a multiple of 2 MiB")]
    [InlineData(36, MiB, "not a multiple of 2 MiB")]
    [InlineData(36, 61 * GiB, "there is room for 59264 MiB")]
    [InlineData(52, ulong.MaxValue & ~0x1F_FFFFUL, "there is room for")]
    public void Persistent_memory_that_does_not_fit_is_an_error(int bits, ulong size, string says)
    {
        VmmException error = Assert.Throws<VmmException>(() => MemoryLayout.Create(GiB, bits, 0, [2 * GiB - 2 * MiB, 2 * MiB, size]));
        Assert.Contains(says, error.Message, StringComparison.Ordinal);
        Assert.Equal(VmmErrorKind.Configuration, error.Kind);
    }

    [Fact]
    public void All_of_the_ram_is_there_and_nothing_else() => ForEveryLayout((layout, _) =>
        layout.Ram.Aggregate(0UL, (sum, range) => sum + range.Length) == layout.RamSize
        && layout.Ram[0].Start == 0
        && layout.Ram[0].End <= MemoryLayout.MmioHoleStart
        && layout.Ram.Count == (layout.RamSize > MemoryLayout.MmioHoleStart ? 2 : 1)
        && layout.Ram.Skip(1).All(range => range.Start == MemoryLayout.HighRamStart && layout.Ram[0].End == MemoryLayout.MmioHoleStart));

    [Fact]
    public void Ranges_are_sorted_disjoint_page_aligned_and_addressable() => ForEveryLayout((layout, hotplug) =>
    {
        ulong from = 0;
        foreach ((string _, AddressRange range) in layout.Ranges)
        {
            if (range.IsEmpty || range.Start < from || range.Start % MemoryLayout.PageSize != 0 || range.Length % MemoryLayout.PageSize != 0)
                return false;
            from = range.End;
        }
        return from <= 1UL << layout.PhysicalAddressBits;
    });

    [Fact]
    public void The_windows_above_ram_are_aligned_and_large_enough() => ForEveryLayout((layout, hotplug) =>
        layout.Hotplug.Start % GiB == 0
        && layout.Hotplug.Length % GiB == 0
        && layout.Hotplug.Length >= hotplug
        && layout.Hotplug.Length - hotplug < GiB
        && layout.Hotplug.Start >= layout.Ram[^1].End
        && ulong.IsPow2(layout.Pci64.Length)
        && layout.Pci64.Length is >= GiB and <= MemoryLayout.MaximumPci64Size
        && layout.Pci64.Start % layout.Pci64.Length == 0);

    [Fact]
    public void The_memory_map_is_sorted_disjoint_and_accounts_for_all_ram() => ForEveryLayout((layout, _) =>
    {
        ulong from = 0, usable = 0;
        foreach (E820Entry entry in layout.CreateE820())
        {
            if (entry.Length == 0 || entry.Start < from)
                return false;
            from = entry.End;
            if (entry.Type != E820Type.Usable)
                continue;
            usable += entry.Length;
            if (!layout.Ram.Any(range => range.Contains(entry.Start, entry.Length)))
                return false;
        }
        return usable == layout.RamSize - (0x10_0000 - 0x9_FC00);
    });

    [Fact]
    public void A_small_guest_has_one_range_of_ram_and_its_windows_from_4_GiB()
    {
        MemoryLayout layout = MemoryLayout.Create(128 * MiB, 46, 3 * GiB - 4096);
        Assert.Equal([new AddressRange(0, 128 * MiB)], layout.Ram);
        Assert.Equal(new AddressRange(4 * GiB, 3 * GiB), layout.Hotplug);
        Assert.Equal(new AddressRange(512 * GiB, 512 * GiB), layout.Pci64);
        Assert.Equal(
            [
                new E820Entry(0, 0x9FC00, E820Type.Usable),
                new E820Entry(0x9FC00, 0x60400, E820Type.Reserved),
                new E820Entry(0x10_0000, 127 * MiB, E820Type.Usable),
                new E820Entry(0xE000_0000, 0x1000_0000, E820Type.Reserved),
                new E820Entry(0xFEFF_C000, 0x4000, E820Type.Reserved),
            ],
            layout.CreateE820());
    }

    [Fact]
    public void A_large_guest_continues_above_4_GiB()
    {
        MemoryLayout layout = MemoryLayout.Create(5 * GiB, 46);
        Assert.Equal([new AddressRange(0, 3 * GiB), new AddressRange(4 * GiB, 2 * GiB)], layout.Ram);
        Assert.Equal(new AddressRange(6 * GiB, 0), layout.Hotplug);
        Assert.Equal(new E820Entry(4 * GiB, 2 * GiB, E820Type.Usable), layout.CreateE820()[^1]);
    }

    [Theory]
    [InlineData(36, 128 * MiB, 32 * GiB, 32 * GiB)]
    [InlineData(40, 128 * MiB, 512 * GiB, 512 * GiB)]
    [InlineData(39, 300 * GiB, 384 * GiB, 128 * GiB)]
    [InlineData(36, 63 * GiB, 64 * GiB, 0)]
    [InlineData(36, 62 * GiB, 63 * GiB, 1 * GiB)]
    [InlineData(32, 128 * MiB, 4 * GiB, 0)]
    [InlineData(64, 128 * MiB, 512 * GiB, 512 * GiB)]
    public void The_64_bit_window_is_the_largest_that_fits(int bits, ulong ram, ulong start, ulong length) =>
        Assert.Equal(new AddressRange(start, length), MemoryLayout.Create(ram, bits).Pci64);

    [Theory]
    [InlineData(0UL, 46, 0UL, "the least is 64 MiB")]
    [InlineData(MiB, 46, 0UL, "the least is 64 MiB")]
    [InlineData(64 * MiB - 4096, 46, 0UL, "the least is 64 MiB")]
    [InlineData(64 * MiB + 1, 46, 0UL, "not a multiple of the page size")]
    [InlineData(64 * MiB, 46, 4095UL, "not a multiple of the page size")]
    [InlineData(64 * GiB, 36, 0UL, "there is room for 63 GiB")]
    [InlineData(4 * GiB, 32, 0UL, "there is room for 3 GiB")]
    [InlineData(TiB, 40, 0UL, "physical addresses of 40 bits")]
    [InlineData(ulong.MaxValue & ~0xFFFUL, 52, 0UL, "physical addresses of 52 bits")]
    [InlineData(GiB, 46, ulong.MaxValue & ~0xFFFUL, "Cannot keep room")]
    [InlineData(GiB, 36, 61 * GiB, "there is room for 60 GiB")]
    public void What_does_not_fit_is_an_error_that_says_what_would(ulong ram, int bits, ulong hotplug, string says)
    {
        VmmException error = Assert.Throws<VmmException>(() => MemoryLayout.Create(ram, bits, hotplug));
        Assert.Equal(VmmErrorKind.Configuration, error.Kind);
        Assert.Contains(says, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Too_narrow_addresses_are_the_hosts_fault() =>
        Assert.Equal(VmmErrorKind.Host, Assert.Throws<VmmException>(() => MemoryLayout.Create(GiB, 31)).Kind);

    [Fact]
    public void Ram_may_fill_the_address_space_to_the_last_page()
    {
        MemoryLayout layout = MemoryLayout.Create(63 * GiB, 36);
        Assert.Equal(64 * GiB, layout.Ram[1].End);
        Assert.True(layout.Pci64.IsEmpty);
    }

    [Fact]
    public void Virtio_mmio_slots_are_pages_of_their_window()
    {
        Assert.Equal(0xC000_1000UL, MemoryLayout.VirtioMmioSlot(0).Start);
        Assert.Equal(MemoryLayout.VirtioMmio.End, MemoryLayout.VirtioMmioSlot(MemoryLayout.VirtioMmioSlots - 1).End);
        Assert.Throws<ArgumentOutOfRangeException>(() => MemoryLayout.VirtioMmioSlot(MemoryLayout.VirtioMmioSlots));
        Assert.Throws<ArgumentOutOfRangeException>(() => MemoryLayout.VirtioMmioSlot(-1));
    }
}
