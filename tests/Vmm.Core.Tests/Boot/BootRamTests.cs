using FsCheck;
using FsCheck.Fluent;
using Vmm.Core.Boot;

namespace Vmm.Core.Tests.Boot;

public sealed class BootRamTests
{
    private const ulong Page = 4096;
    private const ulong Base = 0x100000;
    private const int Pages = 64;

    [Fact]
    public void Highest_place_is_the_one_that_a_search_of_all_pages_finds()
    {
        using var ram = new TestRam((Base, 24 * Page), (Base + (32 * Page), 32 * Page));
        Gen<(int ReservedAt, int ReservedLength, int Bytes, int Limit, int HoleAt)> cases =
            from at in Gen.Choose(0, Pages)
            from length in Gen.Choose(0, 20)
            from bytes in Gen.Choose(1, 40 * (int)Page)
            from limit in Gen.Choose(0, Pages * (int)Page)
            from hole in Gen.Choose(0, Pages - 1)
            select (at, length, bytes, limit, hole);
        Prop.ForAll(cases.ToArbitrary(), c =>
        {
            // The map takes one page out of the RAM, and calls the rest RAM in two entries.
            E820Entry[] map =
            [
                new(0, Base + ((ulong)c.HoleAt * Page), (E820Type)1),
                new(Base + ((ulong)(c.HoleAt + 1) * Page), Pages * Page, (E820Type)1),
            ];
            ulong reserved = Base + ((ulong)c.ReservedAt * Page);
            ulong reservedEnd = reserved + ((ulong)c.ReservedLength * Page);
            ulong limit = Base + (ulong)c.Limit;
            bool Free(int page) =>
                page is < 24 or >= 32 and < 64 && page != c.HoleAt
                && !(Base + ((ulong)page * Page) >= reserved && Base + ((ulong)page * Page) < reservedEnd);
            ulong? expected = null;
            for (int first = 0; first < Pages; first++)
            {
                int last = first + ((c.Bytes - 1) / (int)Page);
                ulong start = Base + ((ulong)first * Page);
                // A place never reaches over the gap between the ranges, as that is never free.
                if (last < Pages && start + (ulong)c.Bytes <= limit && Enumerable.Range(first, last - first + 1).All(Free))
                    expected = start;
            }
            ulong? found = new BootRam(ram.Memory, map).FindHighest((ulong)c.Bytes, limit, reserved, reservedEnd);
            Assert.Equal(expected, found);
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(2000).WithReplay(20, 31));
    }

    [Fact]
    public void Map_entries_that_touch_are_one_range_and_those_that_wrap_are_cut()
    {
        using var ram = new TestRam((0, Base + (16 * Page)));
        E820Entry[] map = [new(Base + (8 * Page), ulong.MaxValue, (E820Type)1), new(0, Base + (8 * Page), (E820Type)1)];
        var boot = new BootRam(ram.Memory, map);
        Assert.True(boot.Contains(Base, 16 * Page));
        Assert.False(boot.Contains(Base, (16 * Page) + 1));
        Assert.False(boot.Contains(Base - 1, 1));
        Assert.False(boot.Contains(Base + Page, ulong.MaxValue));
        Assert.Equal(Base, boot.FindLowest(16 * Page, Page));
        Assert.Null(boot.FindLowest((16 * Page) + 1, Page));
        Assert.Null(boot.FindLowest(1, 1ul << 63));
    }
}
