using System.Globalization;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Core.Memory;

namespace Vmm.Core.Tests.Memory;

/// <summary>Memory that goes back to the host: what is gone is really gone, and what lies beside it is untouched.</summary>
public sealed class GuestMemoryDiscardTests
{
    private const ulong MiB = 1 << 20;
    private const ulong Page = GuestRegion.SmallPage;

    // Two ranges that touch, and one apart.
    private static readonly (ulong Start, ulong Length)[] _ranges = [(0, 4 * MiB), (4 * MiB, 2 * MiB), (16 * MiB, 2 * MiB)];

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Discarded_pages_leave_the_process_and_read_as_zero(bool shared)
    {
        using GuestRam ram = GuestRam.Allocate([(0, 16 * MiB)], new GuestRamOptions(Shared: shared));
        Span<byte> all = Filled(ram, 0, 16 * MiB);
        nint host = ram.Memory.Regions[0].HostAddress;
        Assert.Equal(16L << 20, HostPages.ResidentBytes(host, 16 * MiB));

        // Not a whole page at either end: those stay.
        Assert.True(ram.Memory.TryDiscard((4 * MiB) + 100, 8 * MiB, out ulong discarded));
        Assert.Equal((8 * MiB) - Page, discarded);
        Assert.Equal((8L << 20) + (long)Page, HostPages.ResidentBytes(host, 16 * MiB));
        int first = (int)((4 * MiB) + Page);
        Assert.Equal(-1, all[..first].IndexOfAnyExcept((byte)0xA5));
        Assert.Equal(-1, all[(int)(12 * MiB)..].IndexOfAnyExcept((byte)0xA5));
        Assert.Equal(-1, all[first..(int)(12 * MiB)].IndexOfAnyExcept((byte)0));

        // It is memory as before where it is used again.
        ram.Memory.Write(5 * MiB, 0x1122334455667788UL);
        Assert.True(ram.Memory.TryRead(5 * MiB, out ulong value));
        Assert.Equal(0x1122334455667788UL, value);
    }

    [Fact]
    public void A_file_gives_its_blocks_back_to_everybody_who_maps_it()
    {
        using GuestRam ram = GuestRam.Allocate([(0, 2 * MiB), (1UL << 32, 2 * MiB)], new GuestRamOptions(Shared: true));
        Filled(ram, 0, 2 * MiB);
        Filled(ram, 1UL << 32, 2 * MiB);
        Assert.True(ram.Memory.TryDiscard(1UL << 32, MiB, out _));
        // Through the file, not through the mapping: as another process would see it.
        using FileStream file = File.OpenRead($"/proc/self/fd/{ram.Memory.Regions[0].FileDescriptor}");
        byte[] bytes = new byte[4 * MiB];
        file.ReadExactly(bytes);
        Assert.Equal(-1, bytes.AsSpan(0, (int)(2 * MiB)).IndexOfAnyExcept((byte)0xA5));
        Assert.Equal(-1, bytes.AsSpan((int)(2 * MiB), (int)MiB).IndexOfAnyExcept((byte)0));
        Assert.Equal(-1, bytes.AsSpan((int)(3 * MiB)).IndexOfAnyExcept((byte)0xA5));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Any_range_is_as_a_model_says(bool shared)
    {
        Gen<(ulong Address, ulong Length)> ranges =
            from edge in Gen.Elements<ulong>(0, Page, MiB, 4 * MiB, 6 * MiB, 16 * MiB, 18 * MiB, ulong.MaxValue - 10, 1UL << 63)
            from delta in Gen.Choose(-9000, 9000)
            from length in Gen.Frequency((5, Gen.Choose(0, 20_000)), (1, Gen.Choose(0, 7 << 20)), (1, Gen.Constant(-1)))
            select (edge + (ulong)(long)delta, length < 0 ? ulong.MaxValue : (ulong)length);
        using GuestRam ram = GuestRam.Allocate(_ranges, new GuestRamOptions(Shared: shared));
        foreach ((ulong start, ulong length) in _ranges)
            Filled(ram, start, length);
        Prop.ForAll(ranges.ToArbitrary(), range => Check(ram.Memory, range.Address, range.Length))
            .Check(Config.QuickThrowOnFailure.WithMaxTest(300).WithReplay(20261121, 7));
    }

    [Fact]
    public void Of_huge_pages_only_whole_ones_go()
    {
        // Small pages that say they are huge: the same calls, and every host has them. The range begins inside a page and ends inside one.
        const ulong huge = 64 << 10;
        using GuestRam ram = GuestRam.Allocate([(0, 4 * MiB)], default);
        nint host = (nint)(((ulong)ram.Memory.Regions[0].HostAddress + huge - 1) & ~(huge - 1)) + (5 * 4096);
        var memory = new GuestMemory([new GuestRegion(MiB, MiB, host, -1, 0, huge)]);
        Assert.True(memory.TryGetSpan(MiB, (int)MiB, out Span<byte> all));
        all.Fill(0xA5);
        Assert.True(memory.TryDiscard(MiB, MiB, out ulong discarded));
        const int lead = 11 * 4096;
        Assert.Equal(MiB - huge, discarded);
        Assert.Equal(-1, all[..lead].IndexOfAnyExcept((byte)0xA5));
        Assert.Equal(-1, all[lead..^(5 * 4096)].IndexOfAnyExcept((byte)0));
        Assert.Equal(-1, all[^(5 * 4096)..].IndexOfAnyExcept((byte)0xA5));
        all.Fill(0xA5);
        Assert.True(memory.TryDiscard(MiB + lead + 1, (2 * huge) - 2, out discarded));
        Assert.Equal(0UL, discarded);
        Assert.Equal(-1, all.IndexOfAnyExcept((byte)0xA5));
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void Real_huge_pages_go_back_to_the_pool(bool shared)
    {
        Skip.If(FreeHugePages() < 4, "This host has fewer than 4 free huge pages; reserve them with: sysctl vm.nr_hugepages=8.");
        using GuestRam ram = GuestRam.Allocate([(0, 8 * MiB)], new GuestRamOptions(Shared: shared, HugePages: true, HugePageSize: 2 * MiB));
        Span<byte> all = Filled(ram, 0, 8 * MiB);
        Assert.True(ram.Memory.TryDiscard(MiB, 6 * MiB, out ulong discarded));
        Assert.Equal(4 * MiB, discarded);
        Assert.Equal(-1, all[..(int)(2 * MiB)].IndexOfAnyExcept((byte)0xA5));
        Assert.Equal(-1, all[(int)(6 * MiB)..].IndexOfAnyExcept((byte)0xA5));
        Assert.Equal(-1, all[(int)(2 * MiB)..(int)(6 * MiB)].IndexOfAnyExcept((byte)0));
    }

    [Fact]
    public void A_host_address_is_found_again()
    {
        using GuestRam ram = GuestRam.Allocate([(0, MiB), (1UL << 32, MiB)], default);
        foreach (GuestRegion region in ram.Memory.Regions)
        {
            Assert.True(ram.Memory.TryGetAddress(region.HostAddress, out ulong address));
            Assert.Equal(region.Start, address);
            Assert.True(ram.Memory.TryGetAddress(region.HostAddress + (nint)MiB - 1, out address));
            Assert.Equal(region.Start + MiB - 1, address);
        }
        nint lowest = ram.Memory.Regions.Min(r => r.HostAddress);
        Assert.False(ram.Memory.TryGetAddress(lowest - 1, out _));
        Assert.False(ram.Memory.TryGetAddress(lowest + (nint)(2 * MiB), out _));
    }

    private static bool Check(GuestMemory memory, ulong address, ulong length)
    {
        // The model: touching ranges are one; each wholly covered page of it goes, up to the first byte that is not RAM.
        ulong end = address switch
        {
            < 6 * MiB => 6 * MiB,
            >= 16 * MiB and < 18 * MiB => 18 * MiB,
            _ => address,
        };
        bool whole = length <= end - address;
        ulong covered = Math.Min(length, end - address);
        ulong first = (address + Page - 1) & ~(Page - 1);
        ulong last = (address + covered) & ~(Page - 1);
        ulong expected = last > first ? last - first : 0;
        if (memory.TryDiscard(address, length, out ulong discarded) != whole || discarded != expected)
            return false;
        if (covered == 0)
            return true;
        // What is around keeps its bytes, what went is zero; then everything is filled again.
        ulong from = Math.Max(address & ~(Page - 1), Page) - Page;
        from = address >= 16 * MiB ? Math.Max(from, 16 * MiB) : from;
        ulong to = Math.Min((address + covered + (2 * Page)) & ~(Page - 1), end);
        byte[] bytes = new byte[to - from];
        if (!memory.TryRead(from, bytes))
            return false;
        for (ulong at = from; at < to; at += Page)
        {
            byte value = at >= first && at < last ? (byte)0 : (byte)0xA5;
            if (bytes.AsSpan((int)(at - from), (int)Page).IndexOfAnyExcept(value) >= 0)
                return false;
        }
        Array.Fill(bytes, (byte)0xA5);
        return memory.TryWrite(from, bytes);
    }

    private static Span<byte> Filled(GuestRam ram, ulong start, ulong length)
    {
        Assert.True(ram.Memory.TryGetSpan(start, (int)length, out Span<byte> all));
        all.Fill(0xA5);
        return all;
    }

    private static long FreeHugePages()
    {
        string? line = File.ReadLines("/proc/meminfo").FirstOrDefault(l => l.StartsWith("HugePages_Free:", StringComparison.Ordinal));
        return line == null ? 0 : long.Parse(line.Split(':')[1], CultureInfo.InvariantCulture);
    }
}
