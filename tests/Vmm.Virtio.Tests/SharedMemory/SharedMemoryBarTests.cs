using Vmm.Virtio.SharedMemory;
using Vmm.Virtio.Tests.Transport;

namespace Vmm.Virtio.Tests.SharedMemory;

/// <summary>Regions in one BAR.</summary>
public sealed class SharedMemoryBarTests
{
    [Fact]
    public void An_access_reaches_the_region_that_it_lies_in_and_no_other()
    {
        FakeRegion[] regions = [new(0, 0x1000), new(1, 0x2000), new(9, 0x1000)];
        var bar = new SharedMemoryBar(regions, [0, 0x1000, 0x8000]);
        Assert.Equal(ulong.MaxValue, bar.Load(0xFF8));
        bar.Store(0x1000, 1);
        Assert.Equal(ulong.MaxValue, bar.Load(0x2FF8));
        // Across two regions, between them, and beyond the last: nobody's.
        Assert.Equal(ulong.MaxValue, bar.Load(0xFFC));
        Assert.Equal(ulong.MaxValue, bar.Load(0x3000));
        Assert.Equal(ulong.MaxValue, bar.Load(0x7FFC));
        bar.Store(0x8FFC, 1);
        Assert.Equal(ulong.MaxValue, bar.Load(ulong.MaxValue - 8));
        bar.Store(0x8000, 1);
        Assert.Equal([(1L, 0L), (1L, 1L), (0L, 1L)], regions.Select(r => (r.Counters.HoleReads, r.Counters.HoleWrites)));
    }

    [Fact]
    public void A_bar_without_regions_gives_ones()
    {
        var bar = new SharedMemoryBar([], []);
        Assert.Equal(ulong.MaxValue, bar.Load(0));
        bar.Store(0, 1);
    }
}
