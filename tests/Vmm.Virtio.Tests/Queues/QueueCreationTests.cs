using Vmm.Virtio.Queues;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Queues;

/// <summary>Where a queue's areas may lie, and where it may begin.</summary>
public sealed class QueueCreationTests
{
    // Which area, its alignment, its length for a size of 4.
    public static TheoryData<bool, int, ulong, ulong> Areas => new()
    {
        { false, 0, 16, 64 },
        { false, 1, 2, 14 },
        { false, 2, 4, 38 },
        { true, 0, 16, 64 },
        { true, 1, 4, 4 },
        { true, 2, 4, 4 },
    };

    [Theory]
    [MemberData(nameof(Areas))]
    public void An_area_is_aligned_and_wholly_in_one_ram_range(bool packed, int area, ulong alignment, ulong length)
    {
        using var rig = new QueueRig(new RingFeatures(packed));
        ulong end = 1 << 20;
        ulong last = (end - length) & ~(alignment - 1);
        Assert.Null(Problem(rig, area, last));
        Assert.Null(Problem(rig, area, QueueRig.Touching));
        Assert.NotNull(Problem(rig, area, 0x1000 + (alignment / 2)));
        foreach (ulong outside in (ulong[])[last + alignment, end, 0x200000, 0 - alignment, QueueRig.Touching + 0x2000])
            Assert.Contains("misaligned or not in RAM", Problem(rig, area, outside), StringComparison.Ordinal);
        if (length > alignment)
            Assert.NotNull(Problem(rig, area, QueueRig.Touching + 0x1000 - alignment));
        Assert.Empty(rig.Host.ResetReasons);
    }

    [Theory]
    [InlineData(false, 0)]
    [InlineData(false, 3)]
    [InlineData(false, 65535)]
    [InlineData(true, 0)]
    [InlineData(true, 32769)]
    public void Sizes_that_a_layout_does_not_have(bool packed, int size)
    {
        using var rig = new QueueRig(new RingFeatures(packed));
        Assert.False(rig.TryCreate(rig.Setup(VirtQueueState.Initial) with { Size = (ushort)size }, out _, out string? problem));
        Assert.Contains("size", problem, StringComparison.Ordinal);
    }

    [Fact]
    public void A_packed_queue_does_not_begin_beyond_its_end()
    {
        using var rig = new QueueRig(new RingFeatures(true));
        Assert.False(rig.TryCreate(rig.Setup(new VirtQueueState(4, 0, true, true)), out _, out _));
        Assert.False(rig.TryCreate(rig.Setup(new VirtQueueState(0, 4, true, true)), out _, out _));
        Assert.True(rig.TryCreate(rig.Setup(new VirtQueueState(3, 3, false, true)), out VirtQueue? queue, out _));
        Assert.Equal(new VirtQueueState(3, 3, false, true), queue!.State);
    }

    private static string? Problem(QueueRig rig, int area, ulong address)
    {
        VirtQueueSetup setup = rig.Setup(VirtQueueState.Initial);
        setup = area switch
        {
            0 => setup with { DescriptorArea = address },
            1 => setup with { DriverArea = address },
            _ => setup with { DeviceArea = address },
        };
        bool made = rig.TryCreate(setup, out VirtQueue? queue, out string? problem);
        Assert.Equal(made, queue != null);
        Assert.Equal(made, problem == null);
        return problem;
    }
}
