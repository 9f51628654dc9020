using Vmm.Core.Interop;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.RateLimiting;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices.Net;

public sealed class NetDeviceTests
{
    private static readonly MacAddress Card = Frames.Mac("52:54:00:12:34:56");
    private static readonly MacAddress Other = Frames.Mac("52:54:00:00:00:01");

    [Fact]
    public void The_configuration_space_has_address_status_pairs_and_mtu()
    {
        using var backend = new MemoryBackend(3) { Mtu = 9000 };
        using var guest = new NetGuest(new NetConfig { Id = "net0", Mac = Card, NumQueues = 6 }, backend);
        Assert.Equal([0x52, 0x54, 0, 0x12, 0x34, 0x56, 1, 0, 3, 0, 0x28, 0x23], guest.Driver.Configuration(0, 12));
        Assert.Equal(9000UL, guest.Driver.ConfigurationField(10, 2));
    }

    [Theory]
    [InlineData(true, true, true)]
    [InlineData(true, false, true)]
    [InlineData(true, true, false)]
    [InlineData(false, true, true)]
    public void Offloads_are_offered_as_configured(bool csum, bool tso, bool ufo)
    {
        using var guest = new NetGuest(new NetConfig { Id = "net0", OffloadCsum = csum, OffloadTso = tso, OffloadUfo = ufo });
        ulong offered = guest.Device.OfferedFeatures;
        Assert.Equal(csum ? NetFeatures.Csum | NetFeatures.GuestCsum : 0, offered & (NetFeatures.Csum | NetFeatures.GuestCsum));
        Assert.Equal(csum && tso ? NetFeatures.AllTso : 0, offered & NetFeatures.AllTso);
        Assert.Equal(csum && ufo ? NetFeatures.AllUso : 0, offered & NetFeatures.AllUso);
        Assert.Equal(offered & NetFeatures.GuestOffloads, ((MemoryBackend)guest.Backend).GuestOffloads);
        Assert.Equal(0UL, offered & NetFeatures.MultiQueue);
    }

    [Fact]
    public void What_the_back_end_cannot_do_is_not_offered()
    {
        using var backend = new MemoryBackend { Offloads = NetFeatures.AllTso | NetFeatures.Csum | NetFeatures.GuestCsum };
        using var guest = new NetGuest(null, backend);
        Assert.Equal(0UL, guest.Device.OfferedFeatures & NetFeatures.AllUso);
        Assert.Equal(NetFeatures.AllTso, guest.Device.OfferedFeatures & NetFeatures.AllTso);
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void Frames_go_out_as_they_are(int rings)
    {
        using var guest = new NetGuest(rings: RingFeatures.Of(rings));
        for (int i = 0; i < 300; i++)
        {
            byte[] frame = Frames.Ethernet(Other, i * 5, i);
            guest.Send(frame);
            Assert.True(guest.Ports[0].Sent.TryDequeue(out byte[]? sent));
            Assert.Equal(frame, sent);
        }
        Assert.Equal(300, guest.Counter("tx_frames"));
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void Frames_come_in_as_they_are(int rings)
    {
        using var guest = new NetGuest(rings: RingFeatures.Of(rings), without: NetFeatures.MergeableBuffers);
        guest.Provide(16, 2000);
        for (int i = 0; i < 300; i++)
        {
            byte[] frame = Frames.Ethernet(Other, i * 5, i);
            guest.Ports[0].Arrive(frame);
            (byte[] got, int buffers) = guest.NextFrame();
            Assert.Equal(1, buffers);
            Assert.Equal(Frames.Body(frame), Frames.Body(got));
            guest.Provide(1, 2000);
        }
        Assert.Equal(300, guest.Counter("rx_frames"));
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void A_long_frame_fills_several_buffers(int rings)
    {
        using var guest = new NetGuest(rings: RingFeatures.Of(rings));
        guest.Provide(60, 1526);
        byte[] frame = Frames.Ethernet(Other, 60_000, 7, flags: 1, gsoType: 1);
        byte[] small = Frames.Ethernet(Other, 60);
        guest.Ports[0].Arrive(frame, small);
        (byte[] got, int buffers) = guest.NextFrame();
        Assert.Equal((frame.Length + 1525) / 1526, buffers);
        Assert.Equal(frame[..10], got[..10]);
        Assert.Equal(Frames.Body(frame), Frames.Body(got));
        Assert.Equal(Frames.Body(small), Frames.Body(guest.NextFrame().Frame));
    }

    [Fact]
    public void A_frame_longer_than_the_buffers_there_are_waits_for_more()
    {
        using var guest = new NetGuest();
        guest.Provide(3, 1000);
        byte[] frame = Frames.Ethernet(Other, 4000, 3, flags: 1, gsoType: 1);
        guest.Ports[0].Arrive(frame, Frames.Ethernet(Other, 10));
        guest.Settle();
        Assert.False(guest.Receive.TryGetUsed(out _));
        guest.Provide(1, 1000);
        guest.Settle();
        Assert.False(guest.Receive.TryGetUsed(out _));
        guest.Provide(1, 1000);
        (byte[] got, int buffers) = guest.NextFrame();
        Assert.Equal(5, buffers);
        Assert.Equal(Frames.Body(frame), Frames.Body(got));
        guest.Provide(1, 1000);
        Assert.Equal(HeaderAnd(10), guest.NextFrame().Frame.Length);
    }

    [Fact]
    public void A_frame_that_a_whole_ring_cannot_hold_is_dropped()
    {
        using var guest = new NetGuest(queueSize: 4);
        guest.Provide(4, 200);
        guest.Ports[0].Arrive(Frames.Ethernet(Other, 5000, flags: 1, gsoType: 1), Frames.Ethernet(Other, 10));
        Assert.Equal(HeaderAnd(10), guest.NextFrame().Frame.Length);
        Assert.Equal(1, guest.Counter("rx_dropped"));
    }

    [Fact]
    public void A_frame_longer_than_a_buffer_that_cannot_be_merged_is_dropped()
    {
        using var guest = new NetGuest(without: NetFeatures.MergeableBuffers);
        guest.Provide(2, HeaderAnd(100));
        guest.Ports[0].Arrive(Frames.Ethernet(Other, 101), Frames.Ethernet(Other, 100));
        Assert.Equal(HeaderAnd(100), guest.NextFrame().Frame.Length);
        Assert.Equal(1, guest.Counter("rx_dropped"));
    }

    [Fact]
    public void Without_the_feature_nothing_is_said_of_checksums_and_no_segmentation_comes()
    {
        using var guest = new NetGuest(without: NetFeatures.GuestOffloads);
        guest.Provide(4, 2000);
        guest.Ports[0].Arrive(
            Frames.Ethernet(Other, 20, flags: 1), Frames.Ethernet(Other, 30, gsoType: 1), Frames.Ethernet(Other, 40, flags: 2));
        (byte[] got, _) = guest.NextFrame();
        Assert.Equal(HeaderAnd(40), got.Length);
        Assert.Equal(0, got[0]);
        Assert.Equal(2, guest.Counter("rx_dropped"));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(11)]
    [InlineData(25)]
    [InlineData(70_000)]
    public void What_is_no_frame_is_not_sent_and_given_back(int length)
    {
        using var guest = new NetGuest();
        if (length == 0)
            Assert.True(guest.Transmit.Add([], 64) >= 0);
        else
            Assert.True(guest.Transmit.Add(new byte[length], 0) >= 0);
        guest.Transmit.Kick();
        Assert.Equal(0U, guest.Transmit.WaitUsed().Written);
        guest.Send(Frames.Ethernet(Other, 10));
        Assert.Single(guest.Ports[0].Sent);
        Assert.Equal(1, guest.Counter("tx_malformed"));
        Assert.False(guest.Driver.Host.IsResetNeeded);
    }

    [Fact]
    public void A_receive_buffer_without_room_for_a_header_needs_a_reset()
    {
        using var guest = new NetGuest();
        guest.Provide(2, 2000);
        guest.Provide(1, 11);
        guest.Ports[0].Arrive(Frames.Ethernet(Other, 10));
        guest.Driver.Host.WaitUntil(() => guest.Driver.Host.IsResetNeeded);
        Assert.Contains("11 bytes", Assert.Single(guest.Driver.Host.ResetReasons), StringComparison.Ordinal);
        guest.Driver.Reset();
        guest.Driver.Start();
        guest.Provide(1, 2000);
        guest.Ports[0].Arrive(Frames.Ethernet(Other, 20));
        Assert.InRange((int)Spin(guest.Receive).Written, HeaderAnd(10), HeaderAnd(20));
    }

    [Fact]
    public void What_the_back_end_refuses_is_dropped()
    {
        using var guest = new NetGuest();
        guest.Ports[0].Error = LibC.EINVAL;
        guest.Send(Frames.Ethernet(Other, 10));
        guest.Ports[0].Error = 0;
        guest.Send(Frames.Ethernet(Other, 20));
        Assert.Single(guest.Ports[0].Sent);
        Assert.Equal(1, guest.Counter("tx_dropped"));
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void A_frame_allocates_nothing(int rings)
    {
        using var backend = new LoopbackBackend(1);
        using var guest = new NetGuest(null, backend, RingFeatures.Of(rings));
        // An interrupt costs the test's transport something.
        guest.Receive.DisableInterrupts();
        guest.Transmit.DisableInterrupts();
        guest.Provide(100, 1600);
        byte[] frame = Frames.Ethernet(Other, 3000, flags: 1, gsoType: 1);
        long before = 0, allocated = -1;
        const int Count = 2000;
        for (int i = -200; i < Count; i++)
        {
            if (i == 0)
                guest.Loop.Invoke(() => before = ThreadAllocations.Start());
            Assert.True(guest.Transmit.Add(frame, 0) >= 0);
            guest.Transmit.Kick();
            Spin(guest.Transmit);
            Spin(guest.Receive);
            Spin(guest.Receive);
            guest.Receive.DisableInterrupts();
            guest.Transmit.DisableInterrupts();
            guest.Provide(2, 1600);
        }
        guest.Loop.Invoke(() => allocated = ThreadAllocations.Since(before));
        Assert.Equal(0, allocated);
        Assert.Equal(Count + 200, guest.Counter("rx_frames"));
    }

    [Fact]
    public void Two_frames_of_different_length_in_turn_come_whole()
    {
        using var guest = new NetGuest();
        guest.Provide(120, 1526);
        for (int i = 0; i < 300; i++)
        {
            // Long ones come rarely, so that the card does not expect them.
            byte[] frame = Frames.Ethernet(Other, i % 150 == 149 ? 65_000 : 100 + i, i, flags: 1, gsoType: 1);
            guest.Ports[0].Arrive(frame);
            (byte[] got, int buffers) = guest.NextFrame();
            Assert.True(Frames.Body(frame).AsSpan().SequenceEqual(Frames.Body(got)), $"Frame {i}");
            guest.Provide(buffers, 1526);
        }
    }

    [Fact]
    public void A_queue_that_breaks_with_buffers_taken_stops_and_starts_anew()
    {
        using var guest = new NetGuest();
        guest.Provide(20, 1526);
        guest.Ports[0].Arrive(Frames.Ethernet(Other, 10));
        guest.NextFrame();
        // No RAM there.
        Assert.True(guest.Receive.Add([new GuestBuffer(1UL << 50, 2000, true)]) >= 0);
        guest.Receive.Kick();
        guest.Ports[0].Arrive(Frames.Ethernet(Other, 10));
        guest.Driver.Host.WaitUntil(() => guest.Driver.Host.IsResetNeeded);
        guest.Driver.Reset();
        guest.Driver.Start();
        guest.Provide(20, 1526);
        guest.Ports[0].Arrive(Frames.Ethernet(Other, 20));
        Assert.InRange((int)Spin(guest.Receive).Written, HeaderAnd(10), HeaderAnd(20));
    }

    [Fact]
    public void A_full_back_end_is_waited_for()
    {
        using var guest = new NetGuest();
        guest.Ports[0].Full = true;
        for (int i = 0; i < 100; i++)
            Assert.True(guest.Transmit.Add(Frames.Ethernet(Other, i, i), 0) >= 0);
        guest.Transmit.Kick();
        guest.Settle();
        Assert.False(guest.Transmit.TryGetUsed(out _));
        guest.Ports[0].Full = false;
        for (int i = 0; i < 100; i++)
            guest.Transmit.WaitUsed();
        Assert.Equal(Enumerable.Range(0, 100).Select(HeaderAnd), guest.Ports[0].Sent.Select(f => f.Length));
    }

    [Fact]
    public void Without_a_link_nothing_passes_and_the_driver_is_told()
    {
        using var guest = new NetGuest();
        guest.Provide(4, 2000);
        guest.Device.SetLink(false);
        Assert.Equal(1, guest.Driver.Host.ConfigurationChanges);
        Assert.Equal(0UL, guest.Driver.ConfigurationField(6, 2));
        Assert.False(guest.Backend.Carrier);
        guest.Ports[0].Arrive(Frames.Ethernet(Other, 10));
        guest.Send(Frames.Ethernet(Other, 10));
        guest.Settle();
        Assert.Equal(1, guest.Counter("rx_dropped"));
        Assert.Equal(1, guest.Counter("tx_dropped"));
        guest.Device.SetLink(true);
        Assert.Equal(2, guest.Driver.Host.ConfigurationChanges);
        Assert.Equal(1UL, guest.Driver.ConfigurationField(6, 2));
        guest.Ports[0].Arrive(Frames.Ethernet(Other, 20));
        Assert.Equal(HeaderAnd(20), guest.NextFrame().Frame.Length);
        guest.Send(Frames.Ethernet(Other, 10));
        Assert.Single(guest.Ports[0].Sent);
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void A_stopped_queue_has_its_buffers_back_and_goes_on_from_there(int rings)
    {
        using var guest = new NetGuest(rings: RingFeatures.Of(rings));
        guest.Provide(40, 1600);
        for (int i = 0; i < 30; i++)
        {
            guest.Ports[0].Arrive(Frames.Ethernet(Other, i, i));
            Assert.Equal(Frames.Body(Frames.Ethernet(Other, i, i)), Frames.Body(guest.NextFrame().Frame));
            guest.Driver.Restart();
        }
        Assert.Equal(10, guest.Receive.InFlight);
    }

    [Fact]
    public void A_reset_forgets_what_the_driver_said()
    {
        using var guest = new NetGuest(new NetConfig { Id = "net0", Mac = Card, NumQueues = 4 });
        Assert.Equal(NetGuest.Ok, guest.Command(1, 1, 2, 0, 0, 0, 0, 1));
        Assert.Equal(NetGuest.Ok, guest.Command(4, 0, 2, 0));
        Assert.Equal(Frames.Mac("02:00:00:00:00:01"), guest.Device.Mac);
        Assert.True(guest.Ports[1].Enabled);
        guest.Driver.Reset();
        Assert.Equal(Card, guest.Device.Mac);
        Assert.False(guest.Ports[1].Enabled);
        Assert.Equal(0UL, ((MemoryBackend)guest.Backend).GuestOffloads);
    }

    [Fact]
    public void A_saved_card_goes_on_elsewhere()
    {
        VirtioDeviceState state;
        using (var guest = new NetGuest(new NetConfig { Id = "net0", Mac = Card, NumQueues = 4 }))
        {
            Assert.Equal(NetGuest.Ok, guest.Command(0, 0, 0));
            Assert.Equal(NetGuest.Ok, guest.Command(1, 1, 2, 0, 0, 0, 0, 1));
            Assert.Equal(NetGuest.Ok, guest.Command(4, 0, 2, 0));
            Assert.Equal(NetGuest.Ok, guest.Command(5, 0, 2, 0, 0, 0, 0, 0, 0, 0));
            guest.Driver.Stop();
            state = guest.Device.Save();
        }
        using var backend = new MemoryBackend(2);
        using var there = new NetGuest(new NetConfig { Id = "net0", NumQueues = 4 }, backend);
        there.Driver.Reset();
        there.Device.Restore(state);
        there.Driver.Start();
        Assert.Equal(Frames.Mac("02:00:00:00:00:01"), there.Device.Mac);
        Assert.Equal(NetFeatures.GuestCsum, backend.GuestOffloads);
        Assert.True(backend.MemoryPorts[1].Enabled);
        there.Provide(2, 2000);
        backend.MemoryPorts[0].Arrive(Frames.Ethernet(Card, 10), Frames.Ethernet(there.Device.Mac, 20));
        Assert.Equal(HeaderAnd(20), there.NextFrame().Frame.Length);
        // And the driver is asked to say where it is now.
        Assert.Equal(3UL, there.Driver.ConfigurationField(6, 2));
        Assert.Equal(NetGuest.Ok, there.Command(3, 0));
        Assert.Equal(1UL, there.Driver.ConfigurationField(6, 2));
    }

    [Fact]
    public void Pairs_are_used_when_the_driver_enables_them()
    {
        using var guest = new NetGuest(new NetConfig { Id = "net0", NumQueues = 8 }, loops: 2);
        Assert.Equal([true, false, false, false], guest.Ports.Select(p => p.Enabled));
        DriverQueue transmit = guest.Driver.Queues[5];
        Assert.True(transmit.Add(Frames.Ethernet(Other, 10), 0) >= 0);
        transmit.Kick();
        guest.Provide(2, 2000, guest.Driver.Queues[4]);
        guest.Ports[2].Arrive(Frames.Ethernet(Other, 30));
        guest.Settle();
        Assert.Empty(guest.Ports[2].Sent);
        Assert.Equal(NetGuest.Ok, guest.Command(4, 0, 3, 0));
        Assert.Equal([true, true, true, false], guest.Ports.Select(p => p.Enabled));
        transmit.WaitUsed();
        Assert.Single(guest.Ports[2].Sent);
        Assert.Equal(HeaderAnd(30), guest.NextFrame(guest.Driver.Queues[4]).Frame.Length);
        Assert.Equal(NetGuest.Ok, guest.Command(4, 0, 1, 0));
        Assert.Equal([true, false, false, false], guest.Ports.Select(p => p.Enabled));
    }

    [Fact]
    public void Without_multi_queue_the_third_queue_is_the_control_queue()
    {
        using var guest = new NetGuest(new NetConfig { Id = "net0", NumQueues = 4 }, without: NetFeatures.MultiQueue);
        Assert.Equal(2, guest.Control.Index);
        Assert.Equal(NetGuest.Ok, guest.Command(0, 0, 1));
        Assert.Equal(NetGuest.Error, guest.Command(4, 0, 2, 0));
    }

    [Fact]
    public void A_rate_limit_delays_frames_of_each_direction_and_loses_none()
    {
        var limit = new RateLimiterConfig(default, new TokenBucketConfig(10, 0, 20));
        using var guest = new NetGuest(new NetConfig { Id = "net0", RateLimit = limit });
        guest.Provide(50, 200);
        var clock = System.Diagnostics.Stopwatch.StartNew();
        for (int i = 0; i < 50; i++)
        {
            Assert.True(guest.Transmit.Add(Frames.Ethernet(Other, i, i), 0) >= 0);
            guest.Ports[0].Arrive(Frames.Ethernet(Other, i, i));
        }
        guest.Transmit.Kick();
        for (int i = 0; i < 50; i++)
        {
            guest.Transmit.WaitUsed();
            Assert.Equal(HeaderAnd(i), guest.NextFrame().Frame.Length);
        }
        // 40 frames beyond the first bucket, at 10 in 20 ms.
        Assert.True(clock.Elapsed >= TimeSpan.FromMilliseconds(79), clock.Elapsed.ToString());
        Assert.Equal(Enumerable.Range(0, 50).Select(HeaderAnd), guest.Ports[0].Sent.Select(f => f.Length));
        Assert.InRange(guest.Counter("tx_throttled"), 1, 50);
        Assert.InRange(guest.Counter("rx_throttled"), 1, 50);
    }

    /// <summary>Waits without interrupts, also of a transport that a reset was asked of before.</summary>
    private static UsedBuffer Spin(DriverQueue queue)
    {
        var clock = System.Diagnostics.Stopwatch.StartNew();
        UsedBuffer used;
        while (!queue.TryGetUsed(out used))
        {
            Thread.Yield();
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(30), "Nothing was given back.");
        }
        return used;
    }

    private static int HeaderAnd(int payload) => Frames.HeaderLength + 14 + payload;
}
