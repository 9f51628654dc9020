using Vmm.Virtio.Queues;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Queues;

/// <summary>The split layout byte by byte, as VIRTIO 1.3 §2.7 draws it.</summary>
public sealed class SplitQueueTests
{
    private const int Next = 1, Write = 2;

    [Fact]
    public void A_chain_is_taken_and_used_with_the_bytes_of_the_specification()
    {
        using var rig = new QueueRig();
        // Two descriptors: 16 readable bytes at 0x10000, then 512 writable ones at 0x11000. {addr, len, flags, next}
        rig.Poke(QueueRig.Descriptors + 32, "0000010000000000 10000000 0100 0100"); // 2 -> 1
        rig.Poke(QueueRig.Descriptors + 16, "0010010000000000 00020000 0200 0000");
        // flags, idx, ring[0]
        rig.Poke(QueueRig.Driver, "0000 0100 0200");

        DescriptorChain chain = rig.Take();

        Assert.Equal(2, chain.Id);
        Assert.Equal(16ul, chain.ReadableLength);
        Assert.Equal(512ul, chain.WritableLength);
        Assert.Equal(new GuestSegment(rig.HostAddress(0x10000), 16), Assert.Single(chain.Readable.ToArray()));
        Assert.Equal(new GuestSegment(rig.HostAddress(0x11000), 512), Assert.Single(chain.Writable.ToArray()));
        Assert.False(rig.Queue.TryTake(out _));

        rig.Queue.GiveBack(chain, 0x123);
        Assert.Equal("0000", rig.Peek(QueueRig.Device + 2, 2));
        Assert.Equal(0, rig.Interrupts);
        rig.Queue.Flush();
        // flags, idx, ring[0] {id, len}, ring[1]
        Assert.Equal("00000100 02000000 23010000 00000000", rig.Peek(QueueRig.Device, 16));
        Assert.Equal(1, rig.Interrupts);
        rig.Queue.Flush();
        Assert.Equal(1, rig.Interrupts);
        Assert.Equal(1, rig.Counters.Requests);
        Assert.Equal(1, rig.Counters.Interrupts);
    }

    [Fact]
    public void Used_entries_of_one_flush_become_visible_at_once_in_the_order_of_being_given_back()
    {
        using var rig = new QueueRig();
        for (int i = 0; i < 3; i++)
            rig.Split(i, QueueRig.Data, 8, Write);
        rig.Available(0, 0, 1, 2);
        DescriptorChain[] chains = [rig.Take(), rig.Take(), rig.Take()];
        rig.Queue.GiveBack(chains[1], 1);
        rig.Queue.GiveBack(chains[0], 2);
        Assert.Equal("0000", rig.Peek(QueueRig.Device + 2, 2));
        rig.Queue.Flush();
        Assert.Equal("00000200 01000000 01000000 00000000 02000000", rig.Peek(QueueRig.Device, 20));
        Assert.Equal(1, rig.Interrupts);
    }

    [Fact]
    public void Indices_wrap_around_at_65536()
    {
        using var rig = new QueueRig(state: new VirtQueueState(65534, 65534, true, true));
        rig.Split(0, QueueRig.Data, 8, Write);
        rig.Split(3, QueueRig.Data, 8, Write);
        rig.Split(1, QueueRig.Data, 8, Write);
        rig.Available(65534, 3, 0, 1); // ends at 1
        for (int i = 0; i < 3; i++)
            rig.Queue.GiveBack(rig.Take(), 0);
        Assert.False(rig.Queue.HasAvailable);
        rig.Queue.Flush();
        Assert.Equal("0100", rig.Peek(QueueRig.Device + 2, 2));
        Assert.Equal("01000000 00000000", rig.Peek(QueueRig.Device + 4, 8));
        Assert.Equal("03000000 00000000 00000000 00000000", rig.Peek(QueueRig.Device + 4 + 16, 16));
        Assert.Equal(new VirtQueueState(1, 1, true, true), rig.Queue.State);
    }

    [Theory]
    [InlineData(0, 1)]
    [InlineData(1, 0)]
    public void Without_an_event_index_the_flag_of_the_driver_suppresses_interrupts(int flags, int interrupts)
    {
        using var rig = new QueueRig();
        rig.Split(0, QueueRig.Data, 8, Write);
        rig.Poke16(QueueRig.Driver, flags);
        rig.Available(0, 0);
        rig.Queue.GiveBack(rig.Take(), 8);
        rig.Queue.Flush();
        Assert.Equal(interrupts, rig.Interrupts);
    }

    [Theory]
    [InlineData(0, 0, 1, true)] // The next one: used_event 0, index 0 -> 1.
    [InlineData(0, 1, 1, false)]
    [InlineData(0, 1, 2, true)]
    [InlineData(0, 65535, 4, false)]
    [InlineData(65534, 65535, 1, false)]
    [InlineData(65534, 65535, 2, true)]
    [InlineData(65534, 0, 2, false)]
    [InlineData(65534, 0, 3, true)]
    public void With_an_event_index_an_interrupt_comes_when_it_is_passed(int start, int usedEvent, int count, bool interrupt)
    {
        using var rig = new QueueRig(new RingFeatures(EventIndex: true), state: new VirtQueueState((ushort)start, (ushort)start, true, true));
        for (int i = 0; i < 4; i++)
            rig.Split(i, QueueRig.Data, 8, Write);
        rig.Available(start, [.. Enumerable.Range(0, count)]);
        rig.Poke16(QueueRig.Driver, 1); // The flag does not count then.
        rig.Poke16(QueueRig.Driver + 4 + 8, usedEvent);
        for (int i = 0; i < count; i++)
            rig.Queue.GiveBack(rig.Take(), 0);
        rig.Queue.Flush();
        Assert.Equal(interrupt ? 1 : 0, rig.Interrupts);
    }

    [Fact]
    public void Doorbells_are_asked_for_by_the_flag_or_by_the_event_index()
    {
        using var plain = new QueueRig();
        plain.Queue.SuppressNotifications();
        Assert.Equal("0100", plain.Peek(QueueRig.Device, 2));
        Assert.False(plain.Queue.RequestNotifications());
        Assert.Equal("0000", plain.Peek(QueueRig.Device, 2));
        plain.Split(0, QueueRig.Data, 8, Write);
        plain.Available(0, 0);
        Assert.True(plain.Queue.RequestNotifications());

        using var events = new QueueRig(new RingFeatures(EventIndex: true), state: new VirtQueueState(0x1234, 0x1234, true, true));
        events.Poke16(QueueRig.Driver + 2, 0x1234);
        events.Queue.SuppressNotifications();
        Assert.False(events.Queue.RequestNotifications());
        Assert.Equal("0000", events.Peek(QueueRig.Device, 2));
        Assert.Equal("3412", events.Peek(QueueRig.Device + 4 + 32, 2));
    }

    [Fact]
    public void An_indirect_table_follows_normal_descriptors()
    {
        using var rig = new QueueRig(new RingFeatures(Indirect: true));
        rig.Split(0, QueueRig.Data, 8, Next, 3);
        rig.Split(3, 0x20003, 48, 4);
        rig.Descriptor(0x20003, 0, QueueRig.Data + 100, 1, Next, 2);
        rig.Descriptor(0x20003, 2, QueueRig.Data + 200, 2, Next | Write, 1);
        rig.Descriptor(0x20003, 1, QueueRig.Data + 300, 3, Write, 0);
        rig.Available(0, 0);
        DescriptorChain chain = rig.Take();
        Assert.Equal(
            [new(rig.HostAddress(QueueRig.Data), 8), new(rig.HostAddress(QueueRig.Data + 100), 1)], chain.Readable.ToArray());
        Assert.Equal(
            [new(rig.HostAddress(QueueRig.Data + 200), 2), new GuestSegment(rig.HostAddress(QueueRig.Data + 300), 3)], chain.Writable.ToArray());
    }

    [Fact]
    public void In_order_one_entry_stands_for_a_batch_of_buffers_that_were_used_whole()
    {
        using var rig = new QueueRig(new RingFeatures(InOrder: true));
        rig.Split(0, QueueRig.Data, 8, 0);
        rig.Split(1, QueueRig.Data, 8, Write);
        rig.Split(2, QueueRig.Data, 8, Write);
        rig.Split(3, QueueRig.Data, 8, Write);
        rig.Available(0, 0, 1, 2, 3);
        DescriptorChain[] chains = [rig.Take(), rig.Take(), rig.Take(), rig.Take()];
        rig.Queue.GiveBack(chains[2], 5);
        rig.Queue.GiveBack(chains[1], 8);
        rig.Queue.GiveBack(chains[3], 8);
        rig.Queue.Flush();
        Assert.Equal("00000000 00000000 00000000", rig.Peek(QueueRig.Device, 12));
        rig.Queue.GiveBack(chains[0], 0);
        rig.Queue.Flush();
        // 0 and 1 were used whole, 2 was not: one entry for the three, where the first one's would be; 3 has its own.
        Assert.Equal(
            "00000400 02000000 05000000 00000000 00000000 00000000 00000000 03000000 08000000", rig.Peek(QueueRig.Device, 36));
        Assert.Equal(1, rig.Interrupts);
        Assert.Equal(4, rig.Counters.Requests);
    }
}
