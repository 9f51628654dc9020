using Vmm.Virtio.Queues;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Queues;

/// <summary>What a driver may not do breaks its queue, once; what it may do at the edge of the rules does not.</summary>
public sealed class QueueRuleTests
{
    private const int Next = 1, Write = 2, Indirect = 4, Avail = 1 << 7;
    private const ulong Table = 0x20000;

    private static readonly RingFeatures s_split = new(Indirect: true);
    private static readonly RingFeatures s_packed = new(Packed: true, Indirect: true);

    public static TheoryData<ulong, uint> OutsideRam => new()
    {
        { 0x200000, 1 }, // Where nothing is.
        { (1 << 20) - 1, 2 }, // Over the end.
        { ulong.MaxValue, 1 },
        { ulong.MaxValue - 7, 16 }, // Over the top, to address 8.
        { QueueRig.Touching + 0x1FFF, 2 },
        { 0, uint.MaxValue },
    };

    [Theory]
    [MemberData(nameof(OutsideRam))]
    public void Buffers_outside_ram(ulong address, uint length)
    {
        using var split = new QueueRig();
        split.Split(0, address, length, 0);
        split.Available(0, 0);
        split.ExpectBreak("not in RAM");
        using var packed = new QueueRig(s_packed);
        packed.Packed(0, address, length, 0, Avail);
        packed.ExpectBreak("not in RAM");
        using var table = new QueueRig(s_packed);
        table.Packed(0, Table, 16, 0, Avail | Indirect);
        table.Descriptor(Table, 0, address, length, 0, 0);
        table.ExpectBreak("not in RAM");
    }

    [Theory]
    [InlineData(0)]
    [InlineData(Write)]
    public void Descriptors_of_no_bytes(int flags)
    {
        using var split = new QueueRig();
        split.Split(0, QueueRig.Data, 0, flags);
        split.Available(0, 0);
        split.ExpectBreak("no bytes");
        using var packed = new QueueRig(s_packed);
        packed.Packed(0, QueueRig.Data, 0, 0, Avail | flags);
        packed.ExpectBreak("no bytes");
    }

    [Fact]
    public void A_readable_descriptor_after_a_writable_one()
    {
        using var split = new QueueRig();
        split.Split(0, QueueRig.Data, 1, Write | Next, 1);
        split.Split(1, QueueRig.Data, 1, 0);
        split.Available(0, 0);
        split.ExpectBreak("readable descriptor follows");
        using var packed = new QueueRig(s_packed);
        packed.Packed(0, QueueRig.Data, 1, 0, Avail | Write | Next);
        packed.Packed(1, QueueRig.Data, 1, 0, Avail);
        packed.ExpectBreak("readable descriptor follows");
    }

    [Fact]
    public void Chains_that_loop()
    {
        using var split = new QueueRig();
        split.Split(0, QueueRig.Data, 1, Next, 1);
        split.Split(1, QueueRig.Data, 1, Next, 0);
        split.Available(0, 0);
        split.ExpectBreak("loop");
        using var table = new QueueRig(s_split);
        table.Split(0, Table, 32, Indirect);
        table.Descriptor(Table, 0, QueueRig.Data, 1, Next, 1);
        table.Descriptor(Table, 1, QueueRig.Data, 1, Next, 1);
        table.Available(0, 0);
        table.ExpectBreak("loop");
        using var packed = new QueueRig(s_packed);
        for (int i = 0; i < 4; i++)
            packed.Packed(i, QueueRig.Data, 1, 0, Avail | Next);
        packed.ExpectBreak("longer than what is free");
    }

    [Fact]
    public void Indices_beyond_a_table()
    {
        using var head = new QueueRig();
        head.Available(0, 4);
        head.ExpectBreak("beyond the table");
        using var next = new QueueRig();
        next.Split(0, QueueRig.Data, 1, Next, 65535);
        next.Available(0, 0);
        next.ExpectBreak("beyond the table");
        using var table = new QueueRig(s_split);
        table.Split(0, Table, 32, Indirect);
        table.Descriptor(Table, 0, QueueRig.Data, 1, Next, 2);
        table.Available(0, 0);
        table.ExpectBreak("beyond its indirect table");
    }

    [Fact]
    public void Indirect_descriptors_that_are_not_allowed()
    {
        using var unasked = new QueueRig();
        unasked.Split(0, Table, 16, Indirect);
        unasked.Available(0, 0);
        unasked.ExpectBreak("without VIRTIO_F_INDIRECT_DESC");
        using var unaskedPacked = new QueueRig(new RingFeatures(Packed: true));
        unaskedPacked.Packed(0, Table, 16, 0, Avail | Indirect);
        unaskedPacked.ExpectBreak("without VIRTIO_F_INDIRECT_DESC");
        using var next = new QueueRig(s_split);
        next.Split(0, Table, 16, Indirect | Next, 1);
        next.Available(0, 0);
        next.ExpectBreak("has a next one");
        using var nested = new QueueRig(s_split);
        nested.Split(0, Table, 16, Indirect);
        nested.Descriptor(Table, 0, Table, 16, Indirect, 0);
        nested.Available(0, 0);
        nested.ExpectBreak("in an indirect table");
        using var packed = new QueueRig(s_packed);
        packed.Packed(0, Table, 16, 0, Avail | Indirect | Next);
        packed.ExpectBreak("part of a longer chain");
        using var last = new QueueRig(s_packed);
        last.Packed(0, QueueRig.Data, 16, 0, Avail | Next);
        last.Packed(1, Table, 16, 0, Avail | Indirect);
        last.ExpectBreak("part of a longer chain");
    }

    [Theory]
    [InlineData(Table, 0u, "length")]
    [InlineData(Table, 8u, "length")]
    [InlineData(Table, 17u, "length")]
    [InlineData(0x200000UL, 16u, "not in RAM")]
    [InlineData((1UL << 20) - 8, 16u, "not in RAM")]
    [InlineData(ulong.MaxValue - 15, 16u, "not in RAM")]
    [InlineData(ulong.MaxValue - 7, 16u, "not in RAM")]
    public void Indirect_tables_of_a_bad_length_or_place(ulong address, uint length, string words)
    {
        using var split = new QueueRig(s_split);
        split.Split(0, address, length, Indirect);
        split.Available(0, 0);
        split.ExpectBreak(words);
        using var packed = new QueueRig(s_packed);
        packed.Packed(0, address, length, 0, Avail | Indirect);
        packed.ExpectBreak(words);
    }

    [Fact]
    public void Chains_of_too_many_segments()
    {
        foreach (int count in (int[])[DescriptorChain.MaximumSegments, DescriptorChain.MaximumSegments + 1])
        {
            using var split = new QueueRig(s_split);
            using var packed = new QueueRig(s_packed);
            for (int i = 0; i < count; i++)
            {
                split.Descriptor(Table, i, QueueRig.Data, 1, i + 1 < count ? Next : 0, i + 1);
                packed.Descriptor(Table, i, QueueRig.Data, 1, 0, 0);
            }
            split.Split(0, Table, (uint)count * 16, Indirect);
            split.Available(0, 0);
            packed.Packed(0, Table, (uint)count * 16, 0, Avail | Indirect);
            if (count == DescriptorChain.MaximumSegments)
            {
                Assert.Equal((ulong)count, split.Take().ReadableLength);
                Assert.Equal((ulong)count, packed.Take().ReadableLength);
            }
            else
            {
                split.ExpectBreak("too many segments");
                packed.ExpectBreak("too many segments");
            }
        }
    }

    [Fact]
    public void One_gib_in_one_chain_is_allowed_where_buffers_overlap()
    {
        using var rig = new QueueRig(s_packed);
        for (int i = 0; i < 1024; i++)
            rig.Descriptor(Table, i, 0, 1 << 20, 0, 0);
        rig.Packed(0, Table, 1024 * 16, 0, Avail | Indirect);
        Assert.Equal(1UL << 30, rig.Take().ReadableLength);
    }

    [Theory]
    [InlineData(4, true)]
    [InlineData(5, false)]
    [InlineData(65535, false)]
    public void An_available_index_that_is_too_far_ahead(int index, bool allowed)
    {
        using var rig = new QueueRig();
        for (int i = 0; i < 4; i++)
            rig.Split(i, QueueRig.Data, 1, 0);
        rig.Available(0, 0, 1, 2, 3);
        rig.Poke16(QueueRig.Driver + 2, index);
        if (allowed)
            rig.Take();
        else
            rig.ExpectBreak("further ahead");
    }

    [Fact]
    public void Buffers_that_are_in_flight_already()
    {
        using var split = new QueueRig();
        split.Split(0, QueueRig.Data, 1, 0);
        split.Available(0, 0, 0);
        split.Take();
        split.ExpectBreak("before it was used");
        using var packed = new QueueRig(s_packed);
        packed.Packed(0, QueueRig.Data, 1, 2, Avail);
        packed.Packed(1, QueueRig.Data, 1, 2, Avail);
        packed.Take();
        packed.ExpectBreak("before it was used");
        using var id = new QueueRig(s_packed);
        id.Packed(0, QueueRig.Data, 1, 4, Avail);
        id.ExpectBreak("id is not below");
    }

    [Fact]
    public void Ring_entries_that_are_in_flight_already()
    {
        using var rig = new QueueRig(s_packed);
        for (int i = 0; i < 4; i++)
            rig.Packed(i, QueueRig.Data, 1, i, Avail);
        for (int i = 0; i < 4; i++)
            rig.Take();
        rig.Packed(0, QueueRig.Data, 1, 0, 1 << 15);
        rig.ExpectBreak("more buffers");
    }

    [Fact]
    public void After_a_break_what_is_given_back_is_dropped()
    {
        foreach (RingFeatures features in RingFeatures.All)
        {
            using var rig = new QueueRig(features);
            rig.Split(0, QueueRig.Data, 1, features.Packed ? 0 : 2, features.Packed ? Avail | Write : 0);
            rig.Available(0, features.Packed ? [] : [0, 9]);
            DescriptorChain chain = rig.Take();
            if (features.Packed)
                rig.Packed(1, QueueRig.Data, 1, 9, Avail);
            Assert.False(rig.Queue.TryTake(out _));
            string before = rig.Peek(0, 0x4000);
            rig.Queue.GiveBack(chain, 1);
            rig.Queue.Flush();
            Assert.Equal(before, rig.Peek(0, 0x4000));
            Assert.Equal(new VirtQueueState(1, 0, true, true), rig.Queue.State);
            Assert.Equal(0, rig.Interrupts);
            Assert.Single(rig.Host.ResetReasons);
        }
    }

    [Fact]
    public void What_was_staged_before_a_break_is_not_counted_as_used()
    {
        foreach (RingFeatures features in RingFeatures.All)
        {
            using var rig = new QueueRig(features);
            rig.Split(0, QueueRig.Data, 1, features.Packed ? 0 : 2, features.Packed ? Avail | Write : 0);
            rig.Available(0, features.Packed ? [] : [0, 9]);
            rig.Queue.GiveBack(rig.Take(), 1);
            if (features.Packed)
                rig.Packed(1, QueueRig.Data, 1, 9, Avail);
            Assert.False(rig.Queue.TryTake(out _));
            Assert.Equal(new VirtQueueState(1, 0, true, true), rig.Queue.State);
        }
    }

    [Fact]
    public void A_buffer_or_a_table_may_lie_in_two_ram_ranges_that_touch()
    {
        using var split = new QueueRig(s_split);
        split.Split(0, QueueRig.Touching + 0xFF0, 0x30, Next, 1);
        split.Split(1, QueueRig.Touching + 0xFF8, 16, Indirect);
        split.Memory.Write(QueueRig.Touching + 0xFF8, QueueRig.Data);
        split.Memory.Write(QueueRig.Touching + 0x1000, 5ul | ((ulong)Write << 32));
        split.Available(0, 0);
        DescriptorChain chain = split.Take();
        Assert.Equal(
            [new(split.HostAddress(QueueRig.Touching + 0xFF0), 0x10), new(split.HostAddress(QueueRig.Touching + 0x1000), 0x20)],
            chain.Readable.ToArray());
        Assert.Equal(new GuestSegment(split.HostAddress(QueueRig.Data), 5), Assert.Single(chain.Writable.ToArray()));
    }

    [Fact]
    public void Defects_of_a_device_are_told_to_it()
    {
        foreach (RingFeatures features in (RingFeatures[])[default, s_packed])
        {
            using var rig = new QueueRig(features);
            for (int i = 0; i < 2; i++)
                rig.Descriptor(QueueRig.Descriptors, i, QueueRig.Data, 8, features.Packed ? i : Write, features.Packed ? Avail | Write : 0);
            rig.Available(0, features.Packed ? [] : [0, 1]);
            DescriptorChain first = rig.Take(), second = rig.Take();
            Assert.Throws<InvalidOperationException>(() => rig.Queue.Untake(first));
            Assert.Throws<ArgumentOutOfRangeException>(() => rig.Queue.GiveBack(second, 9));
            rig.Queue.GiveBack(first, 8);
            Assert.Throws<InvalidOperationException>(() => rig.Queue.GiveBack(first, 8));
            rig.Queue.Untake(second);
            Assert.Throws<InvalidOperationException>(() => rig.Queue.Untake(second));
            Assert.Equal(second.Id, rig.Take().Id);
        }
    }
}
