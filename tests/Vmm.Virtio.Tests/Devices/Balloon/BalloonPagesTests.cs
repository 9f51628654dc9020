using FsCheck;
using FsCheck.Fluent;
using Vmm.Core.Memory;
using Vmm.Core.Tests.Memory;
using Vmm.Virtio.Devices.Balloon;

namespace Vmm.Virtio.Tests.Devices.Balloon;

/// <summary>Lists of page numbers, as honest and as hostile drivers send them, against a set of numbers and the kernel's own word on memory.</summary>
public sealed class BalloonPagesTests
{
    private const ulong MiB = 1 << 20;

    // 1 MiB at 0, 1 MiB that touches it, 512 KiB at 4 GiB.
    private static readonly (ulong Start, ulong Length)[] _ranges = [(0, MiB), (MiB, MiB), (1UL << 32, MiB / 2)];

    private static Gen<uint[]> Lists { get; } =
        from lists in Gen.ArrayOf(Gen.Frequency((6, Runs()), (2, Gen.Elements<uint>(0, 255, 256, 511, 512, 0xFFFFF, 0x100000, 0x10007F, 0x100080, uint.MaxValue).Select(p => new[] { p }))))
        from falling in Gen.Elements(false, true)
        select (falling ? lists.Reverse() : lists).SelectMany(l => l).ToArray();

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Any_lists_are_as_a_set_says(bool shared)
    {
        using GuestRam ram = GuestRam.Allocate(_ranges, new GuestRamOptions(Shared: shared));
        Gen<(uint[] Pages, bool Inflate)[]> steps = Gen.ArrayOf(
            from pages in Lists
            from inflate in Gen.Elements(true, true, false)
            select (pages, inflate));
        Prop.ForAll(steps.ToArbitrary(), s => Check(ram.Memory, s))
            .Check(Config.QuickThrowOnFailure.WithMaxTest(100).WithEndSize(30).WithReplay(20261121, 9));
    }

    [Fact]
    public void Of_huge_pages_each_goes_when_its_last_small_page_has_come()
    {
        // Small pages that say they are huge, 16 in one, with a part of one at either end of the range.
        const ulong huge = 64 << 10;
        using GuestRam ram = GuestRam.Allocate([(0, 4 * MiB)], default);
        nint host = (nint)(((ulong)ram.Memory.Regions[0].HostAddress + huge - 1) & ~(huge - 1)) + (5 * 4096);
        var memory = new GuestMemory([new GuestRegion(MiB, MiB, host, -1, 0, huge)]);
        Assert.True(memory.TryGetSpan(MiB, (int)MiB, out Span<byte> all));
        all.Fill(0xA5);
        var counters = new BalloonCounters();
        var pages = new BalloonPages(memory, counters);
        uint[] order = [.. Enumerable.Range(256, 256).Select(i => (uint)i)];
        new Random(1).Shuffle(order);
        var model = new HashSet<uint>();
        foreach (uint page in order)
        {
            pages.Inflate([page]);
            model.Add(page);
            AssertPresence(host, model);
        }
        Assert.Equal((long)(MiB - huge), counters.DiscardedBytes);
        Assert.Equal(256, pages.Count);

        // Out and used again, then in with one list.
        pages.Deflate(order);
        Assert.Equal(0, pages.Count);
        all.Fill(0xA5);
        model.Clear();
        uint[] most = [.. order.Where(p => p != 300)];
        pages.Inflate((uint[])most.Clone());
        model.UnionWith(most);
        AssertPresence(host, model);
        Assert.Equal(2 * (long)(MiB - huge) - (long)huge, counters.DiscardedBytes);

        void AssertPresence(nint at, HashSet<uint> inside)
        {
            bool[] present = HostPages.Present(at, MiB);
            for (int i = 0; i < 256; i++)
            {
                // 11 pages, 15 times 16, and 5 pages.
                int first = i < 11 ? -1 : ((i - 11) / 16 * 16) + 11;
                bool gone = first >= 0 && first + 16 <= 256 && Enumerable.Range(first, 16).All(p => inside.Contains((uint)(256 + p)));
                Assert.Equal(!gone, present[i]);
            }
        }
    }

    [Fact]
    public void Lists_in_any_order_are_few_calls_with_neighbours_together()
    {
        // Seen from outside as time: 2^16 numbers in falling order, with one call each, would take as many calls.
        using GuestRam ram = GuestRam.Allocate([(0, 256 * MiB)], default);
        var counters = new BalloonCounters();
        var pages = new BalloonPages(ram.Memory, counters);
        uint[] list = [.. Enumerable.Range(0, 1 << 16).Select(i => (uint)(65535 - i))];
        pages.Inflate(list);
        Assert.Equal(1 << 16, pages.Count);
        Assert.Equal(256L << 20, counters.DiscardedBytes);
        Assert.Equal([0U, 65536U], pages.Save());
    }

    private static Gen<uint[]> Runs() =>
        from start in Gen.Frequency((4, Gen.Choose(0, 530)), (1, Gen.Choose(0xFFFF0, 0x100090)))
        from count in Gen.Choose(1, 40)
        from step in Gen.Elements(1, 1, 1, 2, 0)
        select Enumerable.Range(0, count).Select(i => (uint)(start + (i * step))).ToArray();

    private static bool Check(GuestMemory memory, (uint[] Pages, bool Inflate)[] steps)
    {
        foreach (GuestRegion region in memory.Regions)
        {
            Assert.True(memory.TryGetSpan(region.Start, (int)region.Length, out Span<byte> bytes));
            bytes.Fill(0xA5);
        }
        var counters = new BalloonCounters();
        var pages = new BalloonPages(memory, counters);
        var inside = new HashSet<uint>();
        var touched = new HashSet<uint>();
        long bad = 0, repeated = 0, added = 0, removed = 0;
        foreach ((uint[] list, bool inflate) in steps)
        {
            foreach (uint page in list)
            {
                bool isRam = page < 512 || page is >= 0x100000 and < 0x100080;
                if (!isRam)
                    bad++;
                else if (inflate ? inside.Add(page) : inside.Remove(page))
                    _ = inflate ? added++ : removed++;
                else
                    repeated++;
                if (isRam && inflate)
                    touched.Add(page);
            }
            if (inflate)
                pages.Inflate((uint[])list.Clone());
            else
                pages.Deflate(list);
        }
        Assert.Equal((inside.Count, bad, repeated, added, removed), ((int)pages.Count, counters.BadPages, counters.RepeatedPages, counters.PagesIn, counters.PagesOut));
        Assert.Equal(inside.Count, counters.InflatedPages);
        Assert.Equal(0, counters.DiscardFailures);

        // What was never in keeps its bytes and its memory; what was in is gone.
        foreach (GuestRegion region in memory.Regions)
        {
            bool[] present = HostPages.Present(region.HostAddress, region.Length);
            Assert.True(memory.TryGetSpan(region.Start, (int)region.Length, out Span<byte> bytes));
            for (int i = 0; i < present.Length; i++)
            {
                bool gone = touched.Contains((uint)((region.Start >> 12) + (ulong)i));
                Assert.Equal(!gone, present[i]);
                if (!gone)
                    Assert.Equal(-1, bytes.Slice(i * 4096, 4096).IndexOfAnyExcept((byte)0xA5));
            }
        }

        // What is saved comes back as it was.
        List<uint> saved = pages.Save();
        var again = new BalloonPages(memory, new BalloonCounters());
        again.Restore(saved);
        Assert.Equal(saved, again.Save());
        Assert.Equal(pages.Count, again.Count);
        Assert.Equal(inside.Order(), Expand(saved));
        return true;
    }

    private static IEnumerable<uint> Expand(List<uint> runs)
    {
        for (int i = 0; i < runs.Count; i += 2)
        {
            for (uint page = 0; page < runs[i + 1]; page++)
                yield return runs[i] + page;
        }
    }
}
