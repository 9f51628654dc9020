using Vmm.Virtio.Queues;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Queues;

/// <summary>The packed layout byte by byte, as VIRTIO 1.3 §2.8 draws it.</summary>
public sealed class PackedQueueTests
{
    private const int Next = 1, Write = 2, Indirect = 4, Avail = 1 << 7, Used = 1 << 15;

    private static readonly RingFeatures s_packed = new(Packed: true);

    [Fact]
    public void A_chain_is_taken_and_used_with_the_bytes_of_the_specification()
    {
        using var rig = new QueueRig(s_packed);
        // {addr, len, id, flags}: the id is that of the last one; AVAIL is 0x80.
        rig.Poke(QueueRig.Descriptors + 16, "0010010000000000 00020000 0300 8200");
        rig.Poke(QueueRig.Descriptors, "0000010000000000 10000000 0700 8100");

        DescriptorChain chain = rig.Take();

        Assert.Equal(3, chain.Id);
        Assert.Equal(new GuestSegment(rig.HostAddress(0x10000), 16), Assert.Single(chain.Readable.ToArray()));
        Assert.Equal(new GuestSegment(rig.HostAddress(0x11000), 512), Assert.Single(chain.Writable.ToArray()));
        Assert.False(rig.Queue.TryTake(out _));
        Assert.Equal(new VirtQueueState(2, 0, true, true), rig.Queue.State);

        rig.Queue.GiveBack(chain, 0x123);
        Assert.Equal("10000000 07008100", rig.Peek(QueueRig.Descriptors + 8, 8));
        rig.Queue.Flush();
        // len, id, and WRITE, AVAIL and USED; the entry of the chain's second descriptor is skipped.
        Assert.Equal("23010000 03008280", rig.Peek(QueueRig.Descriptors + 8, 8));
        Assert.Equal("00020000 03008200", rig.Peek(QueueRig.Descriptors + 24, 8));
        Assert.Equal(1, rig.Interrupts);
        Assert.Equal(new VirtQueueState(2, 2, true, true), rig.Queue.State);
    }

    [Fact]
    public void The_lap_bits_turn_around_with_the_ring()
    {
        using var rig = new QueueRig(s_packed, size: 3);
        rig.Packed(0, QueueRig.Data, 8, 0, Avail);
        rig.Packed(1, QueueRig.Data, 8, 1, Avail);
        rig.Packed(2, QueueRig.Data, 8, 2, Avail);
        for (int i = 0; i < 3; i++)
            rig.Queue.GiveBack(rig.Take(), 0);
        rig.Queue.Flush();
        Assert.Equal(new VirtQueueState(0, 0, false, false), rig.Queue.State);
        Assert.False(rig.Queue.HasAvailable);
        // A used entry without WRITE: nothing was written.
        Assert.Equal("00000000 02008080", rig.Peek(QueueRig.Descriptors + 40, 8));
        // The second lap: USED without AVAIL is available; used is neither.
        rig.Packed(0, QueueRig.Data, 8, 2, Used | Write);
        Assert.True(rig.Queue.HasAvailable);
        rig.Queue.GiveBack(rig.Take(), 8);
        rig.Queue.Flush();
        Assert.Equal("08000000 02000200", rig.Peek(QueueRig.Descriptors + 8, 8));
        // A chain over the ring's end, of the second and the third lap.
        rig.Packed(2, QueueRig.Data, 8, 0, Used);
        rig.Packed(1, QueueRig.Data, 8, 1, Used);
        rig.Queue.GiveBack(rig.Take(), 0);
        rig.Packed(0, QueueRig.Data + 8, 8, 0, Avail | Write);
        rig.Packed(2, QueueRig.Data, 8, 0, Used | Next);
        DescriptorChain chain = rig.Take();
        Assert.Equal(16ul, chain.ReadableLength + chain.WritableLength);
        Assert.Equal(new VirtQueueState(1, 2, true, false), rig.Queue.State);
        rig.Queue.Untake(chain);
        Assert.Equal(new VirtQueueState(2, 2, false, false), rig.Queue.State);
        rig.Queue.GiveBack(rig.Take(), 4);
        rig.Queue.Flush();
        Assert.Equal("04000000 00000200", rig.Peek(QueueRig.Descriptors + 40, 8));
        Assert.Equal(new VirtQueueState(1, 1, true, true), rig.Queue.State);
    }

    [Fact]
    public void The_first_entry_of_a_flush_shows_them_all()
    {
        using var rig = new QueueRig(s_packed);
        for (int i = 0; i < 3; i++)
            rig.Packed(i, QueueRig.Data, 8, i, Avail | Write);
        DescriptorChain[] chains = [rig.Take(), rig.Take(), rig.Take()];
        rig.Queue.GiveBack(chains[2], 1);
        rig.Queue.GiveBack(chains[0], 2);
        rig.Queue.GiveBack(chains[1], 3);
        Assert.Equal("08000000 00008200", rig.Peek(QueueRig.Descriptors + 8, 8));
        Assert.Equal("02000000 00008280", rig.Peek(QueueRig.Descriptors + 24, 8));
        rig.Queue.Flush();
        Assert.Equal("01000000 02008280", rig.Peek(QueueRig.Descriptors + 8, 8));
        Assert.Equal("03000000 01008280", rig.Peek(QueueRig.Descriptors + 40, 8));
        Assert.Equal(1, rig.Interrupts);
    }

    [Theory]
    [InlineData(0, 0, false, 1, true)] // ENABLE
    [InlineData(1, 0, false, 1, false)] // DISABLE
    [InlineData(2, 0, true, 1, true)] // DESC: entry 0 of this lap
    [InlineData(2, 1, true, 1, false)]
    [InlineData(2, 1, true, 2, true)]
    [InlineData(2, 0, false, 3, false)] // of the next lap
    [InlineData(2, 0, false, 4, false)]
    [InlineData(2, 3, true, 4, true)]
    public void The_driver_event_structure_suppresses_interrupts(int flags, int offset, bool wrap, int count, bool interrupt)
    {
        using var rig = new QueueRig(new RingFeatures(Packed: true, EventIndex: true));
        for (int i = 0; i < count; i++)
            rig.Packed(i, QueueRig.Data, 8, i, Avail | Write);
        rig.Poke16(QueueRig.Driver, offset | (wrap ? Used : 0));
        rig.Poke16(QueueRig.Driver + 2, flags);
        for (int i = 0; i < count; i++)
            rig.Queue.GiveBack(rig.Take(), 0);
        rig.Queue.Flush();
        Assert.Equal(interrupt ? 1 : 0, rig.Interrupts);
    }

    [Fact]
    public void An_event_in_the_next_lap_is_passed_after_the_ring_turned()
    {
        using var rig = new QueueRig(new RingFeatures(Packed: true, EventIndex: true), state: new VirtQueueState(3, 3, true, true));
        rig.Packed(3, QueueRig.Data, 8, 0, Avail);
        rig.Packed(0, QueueRig.Data, 8, 1, Used);
        rig.Packed(1, QueueRig.Data, 8, 2, Used);
        rig.Poke(QueueRig.Driver, "0000 0200"); // entry 0, second lap
        rig.Queue.GiveBack(rig.Take(), 0);
        rig.Queue.Flush();
        Assert.Equal(0, rig.Interrupts);
        rig.Queue.GiveBack(rig.Take(), 0);
        rig.Queue.Flush();
        Assert.Equal(1, rig.Interrupts);
        rig.Queue.GiveBack(rig.Take(), 0);
        rig.Queue.Flush();
        Assert.Equal(1, rig.Interrupts);
    }

    [Fact]
    public void Doorbells_are_asked_for_by_the_device_event_structure()
    {
        using var plain = new QueueRig(s_packed);
        plain.Queue.SuppressNotifications();
        Assert.Equal("00000100", plain.Peek(QueueRig.Device, 4));
        Assert.False(plain.Queue.RequestNotifications());
        Assert.Equal("00000000", plain.Peek(QueueRig.Device, 4));

        using var events = new QueueRig(new RingFeatures(Packed: true, EventIndex: true), state: new VirtQueueState(2, 2, true, true));
        Assert.False(events.Queue.RequestNotifications());
        Assert.Equal("02800200", events.Peek(QueueRig.Device, 4));
        events.Packed(2, QueueRig.Data, 8, 0, Avail);
        Assert.True(events.Queue.RequestNotifications());
    }

    [Fact]
    public void Of_an_indirect_table_only_the_write_flag_counts()
    {
        using var rig = new QueueRig(new RingFeatures(Packed: true, Indirect: true));
        rig.Packed(0, 0x20008, 32, 1, Avail | Indirect | Write);
        rig.Descriptor(0x20008, 0, QueueRig.Data, 4, 0x7777, 0xFFFF & ~Write);
        rig.Descriptor(0x20008, 1, QueueRig.Data + 4, 5, 0x8888, 0xFFFF);
        DescriptorChain chain = rig.Take();
        Assert.Equal(1, chain.Id);
        Assert.Equal(4ul, chain.ReadableLength);
        Assert.Equal(5ul, chain.WritableLength);
        rig.Queue.GiveBack(chain, 5);
        Assert.Equal(new VirtQueueState(1, 1, true, true), rig.Queue.State);
    }

    [Fact]
    public void In_order_one_entry_stands_for_a_batch_of_buffers_that_were_used_whole()
    {
        using var rig = new QueueRig(new RingFeatures(Packed: true, InOrder: true), size: 6);
        rig.Packed(1, QueueRig.Data, 8, 0, Avail);
        rig.Packed(0, QueueRig.Data, 8, 0, Avail | Next);
        rig.Packed(2, QueueRig.Data, 8, 1, Avail | Write);
        rig.Packed(3, QueueRig.Data, 8, 2, Avail | Write);
        rig.Packed(4, QueueRig.Data, 8, 3, Avail | Write);
        DescriptorChain[] chains = [rig.Take(), rig.Take(), rig.Take(), rig.Take()];
        rig.Queue.GiveBack(chains[3], 8);
        rig.Queue.GiveBack(chains[2], 5);
        rig.Queue.GiveBack(chains[1], 8);
        rig.Queue.Flush();
        Assert.Equal("08000000 00008100", rig.Peek(QueueRig.Descriptors + 8, 8));
        Assert.Equal(new VirtQueueState(5, 0, true, true), rig.Queue.State);
        rig.Queue.GiveBack(chains[0], 0);
        rig.Queue.Flush();
        Assert.Equal("05000000 02008280", rig.Peek(QueueRig.Descriptors + 8, 8));
        Assert.Equal("08000000 01008200", rig.Peek(QueueRig.Descriptors + 40, 8));
        Assert.Equal("08000000 03008280", rig.Peek(QueueRig.Descriptors + 72, 8));
        Assert.Equal(new VirtQueueState(5, 5, true, true), rig.Queue.State);
    }
}
