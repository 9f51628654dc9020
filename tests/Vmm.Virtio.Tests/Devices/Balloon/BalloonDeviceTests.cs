using System.Runtime.InteropServices;
using Vmm.Core;
using Vmm.Core.Events;
using Vmm.Core.Memory;
using Vmm.Core.Tests.Memory;
using Vmm.Virtio.Devices.Balloon;
using Vmm.Virtio.Devices.Rng;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices.Balloon;

/// <summary>The balloon, with a driver's side and real memory that really goes.</summary>
public sealed class BalloonDeviceTests : IDisposable
{
    private const ulong StatsFeature = 1 << 1, DeflateOnOom = 1 << 2, Reporting = 1 << 5;
    private const int Inflate = 0, Deflate = 1, Stats = 2;

    private static readonly BalloonConfig _everything = new() { DeflateOnOom = true, FreePageReporting = true };

    private readonly EventLoop _loop = new("balloon-test");

    public void Dispose() => _loop.Dispose();

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void Inflated_pages_leave_the_process_and_others_keep_their_bytes(int rings)
    {
        using var device = new BalloonDevice(_everything, [_loop]);
        using var driver = new GuestDriver(device, RingFeatures.Of(rings), StatsFeature);
        driver.Start();
        const int pages = 2048;
        ulong area = Filled(driver, pages * 4096);
        nint host = HostOf(driver, area);
        Assert.All(HostPages.Present(host, pages * 4096), Assert.True);

        // Every page but each third, in falling order, 256 at a time as Linux does it.
        uint first = (uint)(area >> 12);
        uint[] list = [.. Enumerable.Range(0, pages).Where(i => i % 3 != 0).Reverse().Select(i => first + (uint)i)];
        foreach (uint[] part in list.Chunk(256))
            driver.Queues[Inflate].Transact(MemoryMarshal.AsBytes<uint>(part), 0, RingFeatures.Of(rings).Indirect);
        bool[] present = HostPages.Present(host, pages * 4096);
        Assert.True(driver.Memory.TryGetSpan(area, pages * 4096, out Span<byte> bytes));
        for (int i = 0; i < pages; i++)
        {
            Assert.Equal(i % 3 == 0, present[i]);
            Assert.Equal(-1, bytes.Slice(i * 4096, 4096).IndexOfAnyExcept(i % 3 == 0 ? (byte)0xA5 : (byte)0));
        }
        Assert.Equal(list.Length, device.Counters.InflatedPages);
        Assert.Equal(list.Length * 4096L, device.Counters.DiscardedBytes);

        driver.Queues[Deflate].Transact(MemoryMarshal.AsBytes<uint>(list.AsSpan(0, 1000)), 0);
        RecordedCounters counters = RecordedCounters.Of(device);
        Assert.Equal(list.Length - 1000, counters["inflated_pages"]);
        Assert.Equal(1000, counters["pages_out"]);
        Assert.Equal(0, counters["bad_pages"] + counters["repeated_pages"] + counters["discard_failures"]);

        // A reset: the guest has all of its memory again.
        driver.Reset();
        Assert.Equal(0, device.Counters.InflatedPages);
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void Reported_pages_leave_the_process(int rings)
    {
        foreach ((ulong features, int queue) in new[] { (StatsFeature | Reporting, 4), (StatsFeature | Reporting, 3), (Reporting, 2) })
        {
            using var device = new BalloonDevice(_everything, [_loop]);
            using var driver = new GuestDriver(device, RingFeatures.Of(rings), features);
            driver.Start();
            ulong area = Filled(driver, 4 << 20);
            nint host = HostOf(driver, area);
            // Two whole parts, and one with half a page at either end.
            driver.Queues[queue].Add(
                [new(area, 1 << 20, true), new(area + (2 << 20), 1 << 20, true), new(area + (3 << 20) + 2048, 8192, true)],
                RingFeatures.Of(rings).Indirect);
            driver.Queues[queue].Kick();
            Assert.Equal(0U, driver.Queues[queue].WaitUsed().Written);
            bool[] present = HostPages.Present(host, 4 << 20);
            for (int i = 0; i < present.Length; i++)
                Assert.Equal(!(i < 256 || i is >= 512 and < 768 || i == 769), present[i]);
            Assert.Equal((2L << 20) + 4096, device.Counters.ReportedBytes);
            Assert.False(driver.Host.IsResetNeeded);
        }
    }

    [Fact]
    public void Without_the_feature_nothing_is_taken_from_the_reporting_queue()
    {
        using var device = new BalloonDevice(_everything, [_loop]);
        using var driver = new GuestDriver(device, default, StatsFeature);
        driver.Start();
        ulong area = Filled(driver, 4096);
        driver.Queues[4].Add([new(area, 4096, true)]);
        driver.Queues[4].Doorbell.Signal();
        driver.Queues[Inflate].Transact(new byte[4], 0);
        driver.Queues[Inflate].Transact(new byte[4], 0);
        Assert.Equal(1, driver.Queues[4].InFlight);
        Assert.True(HostPages.Present(HostOf(driver, area), 4096)[0]);
        Assert.Equal(0, device.StopQueue(4).NextAvailable);
    }

    [Fact]
    public void The_target_interrupts_and_the_driver_says_what_it_reached()
    {
        using var device = new BalloonDevice(new BalloonConfig { Size = (64 << 20) + 4095 }, [_loop]);
        using var driver = new GuestDriver(device, default, StatsFeature);
        Assert.Equal((64UL << 20) >> 12, driver.ConfigurationField(0, 4));
        device.SetTarget(32 << 20);
        Assert.Equal(0, driver.Host.ConfigurationChanges);
        driver.Start();
        device.SetTarget(16 << 20);
        device.SetTarget((16 << 20) + 1);
        Assert.Equal(1, driver.Host.ConfigurationChanges);
        Assert.Equal(4096UL, driver.ConfigurationField(0, 4));
        Assert.Equal(16UL << 20, device.Target);

        device.WriteConfiguration(4, [0x78, 0x56, 0x34, 0x02]);
        Assert.Equal(0x02345678UL << 12, device.Actual);
        device.WriteConfiguration(5, [0xAB]);
        Assert.Equal(0x0234AB78UL, driver.ConfigurationField(4, 4));
        // num_pages is not the driver's, also where a write covers both.
        device.WriteConfiguration(0, [9, 9, 9, 9, 1, 0, 0, 0]);
        device.WriteConfiguration(3, [9, 2]);
        Assert.Equal((4096UL, 2UL), (driver.ConfigurationField(0, 4), driver.ConfigurationField(4, 4)));
        Assert.Throws<ArgumentOutOfRangeException>(() => device.SetTarget(BalloonDevice.MaximumSize + 1));
        device.SetTarget(BalloonDevice.MaximumSize);
        Assert.Equal(uint.MaxValue, driver.ConfigurationField(0, 4));
        driver.Reset();
        Assert.Equal((0UL, BalloonDevice.MaximumSize), (device.Actual, device.Target));
    }

    [Fact]
    public void Features_are_as_configured()
    {
        using var all = new BalloonDevice(_everything, [_loop]);
        Assert.Equal(VirtioFeatures.AllQueues | StatsFeature | DeflateOnOom | Reporting, all.OfferedFeatures);
        using var few = new BalloonDevice(new BalloonConfig(), [_loop]);
        Assert.Equal(VirtioFeatures.AllQueues | StatsFeature, few.OfferedFeatures);
        Assert.Throws<VmmException>(() => new BalloonDevice(new BalloonConfig { Size = BalloonDevice.MaximumSize + 1 }, [_loop]));
        Assert.Throws<VmmException>(() => new BalloonDevice(new BalloonConfig { StatsPollingInterval = TimeSpan.FromSeconds(-1) }, [_loop]));
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void Statistics_come_when_they_are_asked_for(int rings)
    {
        using var device = new BalloonDevice(new BalloonConfig(), [_loop]);
        using var driver = new GuestDriver(device, RingFeatures.Of(rings), StatsFeature);
        driver.Start();
        // The first message comes by itself, and stays until the next one is wanted.
        driver.Queues[Stats].Add(Message(4, 100), 0);
        driver.Queues[Stats].Kick();
        Assert.True(SpinWait.SpinUntil(() => device.Counters.StatisticsMessages == 1, 30_000));
        driver.Queues[Inflate].Transact(new byte[4], 0);
        Assert.False(driver.Queues[Stats].TryGetUsed(out _));
        Assert.Equal(100UL, device.Statistics[BalloonStatistic.FreeMemory]);
        for (ulong round = 1; round <= 3; round++)
        {
            device.RequestStatistics();
            driver.Queues[Stats].WaitUsed();
            driver.Queues[Stats].Add([.. Message(4, 200 * round), .. Message(5, 7), .. Message(0x7777, 1)], 0);
            driver.Queues[Stats].Kick();
            Assert.True(SpinWait.SpinUntil(() => device.Counters.StatisticsMessages == 1 + (long)round, 30_000));
            Assert.Equal(200 * round, device.Statistics[BalloonStatistic.FreeMemory]);
        }
        Assert.Equal(7, RecordedCounters.Of(device)["guest_total_bytes"]);

        // By the clock, set while it runs; across a pause, after which the message is read again.
        device.StatsPollingInterval = TimeSpan.FromMilliseconds(1);
        for (ulong round = 1; round <= 3; round++)
        {
            driver.Queues[Stats].WaitUsed();
            driver.Queues[Stats].Add(Message(4, 1000 + round), 0);
            driver.Queues[Stats].Kick();
            driver.Restart();
        }
        driver.Queues[Stats].WaitUsed();
        Assert.Equal(1003UL, device.Statistics[BalloonStatistic.FreeMemory]);
        Assert.Equal(TimeSpan.FromMilliseconds(1), device.StatsPollingInterval);
        Assert.Throws<VmmException>(() => device.StatsPollingInterval = TimeSpan.FromDays(2));
        Assert.False(driver.Host.IsResetNeeded);
        driver.Reset();
        Assert.Null(device.Statistics[BalloonStatistic.FreeMemory]);
    }

    [Fact]
    public void A_driver_with_many_messages_gets_all_but_the_last_back()
    {
        using var device = new BalloonDevice(new BalloonConfig(), [_loop]);
        using var driver = new GuestDriver(device, default, StatsFeature);
        driver.Start();
        for (int i = 0; i < 100; i++)
            Assert.NotEqual(-1, driver.Queues[Stats].Add(Message(4, (ulong)i), 0));
        driver.Queues[Stats].Kick();
        for (int i = 0; i < 99; i++)
            driver.Queues[Stats].WaitUsed();
        Assert.True(SpinWait.SpinUntil(() => device.Statistics[BalloonStatistic.FreeMemory] == 99, 30_000));
        Assert.Equal(1, driver.Queues[Stats].InFlight);
    }

    [Theory]
    [InlineData(Inflate, 6, 0)]
    [InlineData(Inflate, 4, 4)]
    [InlineData(Inflate, 0, 4)]
    [InlineData(Deflate, 1, 0)]
    [InlineData(Deflate, 4, 4096)]
    [InlineData(Stats, 10, 10)]
    [InlineData(3, 4096, 4096)]
    [InlineData(4, 4096, 0)]
    public void Requests_of_the_wrong_shape_break_the_device_and_no_other(int queue, int readable, int writable)
    {
        foreach (int rings in new[] { 0, 15 })
        {
            using var device = new BalloonDevice(_everything, [_loop]);
            using var other = new RngDevice(new RngConfig(), [_loop]);
            using var driver = new GuestDriver(device, RingFeatures.Of(rings), StatsFeature | Reporting);
            using var otherDriver = new GuestDriver(other);
            driver.Start();
            otherDriver.Start();
            driver.Queues[queue].Add(new byte[readable], writable);
            driver.Queues[queue].Kick();
            driver.Host.WaitUntil(() => driver.Host.IsResetNeeded);
            Assert.StartsWith($"queue {queue}: a ", Assert.Single(driver.Host.ResetReasons), StringComparison.Ordinal);
            Assert.Equal(64, otherDriver.Queues[0].Transact([], 64).Length);
            Assert.Equal(0, device.Counters.PagesIn + device.Counters.ReportedBytes + device.Counters.StatisticsMessages);
            driver.Reset();
            driver.Start();
            driver.Queues[Inflate].Add(new byte[4], 0);
            driver.Queues[Inflate].Kick();
            Assert.True(SpinWait.SpinUntil(() => driver.Queues[Inflate].TryGetUsed(out _), 30_000));
        }
    }

    [Fact]
    public void Pages_that_are_not_there_are_counted_and_passed_over()
    {
        using var device = new BalloonDevice(new BalloonConfig(), [_loop]);
        using var driver = new GuestDriver(device, default, StatsFeature);
        driver.Start();
        ulong area = Filled(driver, 3 * 4096);
        uint page = (uint)(area >> 12);
        uint[] list = [uint.MaxValue, page + 1, 0x80000, 0x100000 + 4096, page + 1, (32 << 20) >> 12];
        driver.Queues[Inflate].Transact(MemoryMarshal.AsBytes<uint>(list), 0);
        driver.Queues[Deflate].Transact(MemoryMarshal.AsBytes<uint>([uint.MaxValue, page + 2]), 0);
        Assert.Equal((1L, 5L, 2L), (device.Counters.InflatedPages, device.Counters.BadPages, device.Counters.RepeatedPages));
        Assert.Equal([true, false, true], HostPages.Present(HostOf(driver, area), 3 * 4096));
        Assert.False(driver.Host.IsResetNeeded);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(15)]
    public void A_request_of_any_length_leaves_others_their_turn(int rings)
    {
        using var device = new BalloonDevice(_everything, [_loop]);
        using var other = new RngDevice(new RngConfig(), [_loop]);
        using var driver = new GuestDriver(device, RingFeatures.Of(rings), StatsFeature | Reporting, ramBytes: 64 << 20);
        using var otherDriver = new GuestDriver(other);
        driver.Start();
        otherDriver.Start();
        // 8 MiB of numbers again and again in one chain: 100 times 2^21 of them would keep the loop for many seconds.
        ulong area = driver.Arena.Allocate(8 << 20);
        Assert.True(driver.Memory.TryGetSpan(area, 8 << 20, out Span<byte> bytes));
        bytes.Fill(0xFF);
        GuestBuffer[] chain = [.. Enumerable.Repeat(new GuestBuffer(area, 8 << 20), 100)];
        Assert.NotEqual(-1, driver.Queues[Inflate].Add(chain));
        driver.Queues[Inflate].Kick();
        Assert.True(SpinWait.SpinUntil(() => device.Counters.BadPages > 0, 30_000));
        for (int i = 0; i < 5; i++)
            Assert.Equal(64, otherDriver.Queues[0].Transact([], 64).Length);
        // It is stopped in the middle, without waiting for the end.
        Assert.Equal(0, device.StopQueue(Inflate).NextAvailable);
        Assert.InRange(device.Counters.BadPages, 1, (100L << 21) - 1);

        // Reports that name all of the high memory 64 times.
        chain = [.. Enumerable.Repeat(new GuestBuffer(GuestDriver.HighStart, 32 << 20, true), 64)];
        driver.Queues[4].Add(chain);
        driver.Queues[4].Kick();
        driver.Queues[4].WaitUsed();
        Assert.Equal(64L * (32 << 20), device.Counters.ReportedBytes);
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void A_saved_balloon_goes_on_as_another_object(int rings)
    {
        using var device = new BalloonDevice(new BalloonConfig { Size = 1 << 20 }, [_loop]);
        using var next = new BalloonDevice(new BalloonConfig(), [_loop]);
        using var driver = new GuestDriver(device, RingFeatures.Of(rings), StatsFeature);
        driver.Start();
        uint page = (uint)(Filled(driver, 64 * 4096) >> 12);
        driver.Queues[Inflate].Transact(MemoryMarshal.AsBytes<uint>([page, page + 1, page + 2, page + 10]), 0);
        driver.Queues[Stats].Add(Message(4, 5), 0);
        driver.Queues[Stats].Kick();
        Assert.True(SpinWait.SpinUntil(() => device.Counters.StatisticsMessages == 1, 30_000));
        device.WriteConfiguration(4, [4, 0, 0, 0]);
        var states = driver.Stop();
        var state = (BalloonState)device.Save();
        Assert.Equal([page, 3U, page + 10, 1U], state.Inflated);
        next.Restore(state);
        Assert.Equivalent(state, next.Save(), strict: true);
        next.Activate(new VirtioActivation(driver.Features, driver.Memory, driver.Host));
        foreach (DriverQueue queue in driver.Queues)
            next.StartQueue(queue.Setup(states[queue.Index]));
        Assert.Equal((1UL << 20, 4UL << 12), (next.Target, next.Actual));
        // It knows what is in, and has the message that the other one held.
        driver.Queues[Deflate].Transact(MemoryMarshal.AsBytes<uint>([page + 2, page + 10]), 0);
        Assert.Equal((2L, 0L), (next.Counters.InflatedPages, next.Counters.RepeatedPages));
        Assert.True(SpinWait.SpinUntil(() => next.Counters.StatisticsMessages == 1, 30_000));
        next.RequestStatistics();
        driver.Queues[Stats].WaitUsed();
        for (int i = 0; i < 5; i++)
            next.StopQueue(i);
        Assert.Equal([page, 2U], ((BalloonState)next.Save()).Inflated);
        foreach (uint[] runs in new uint[][] { [1], [1, 0], [5, 2, 7, 1], [5, 2, 3, 1], [uint.MaxValue, 2] })
            Assert.Throws<VmmException>(() => next.Restore(state with { Inflated = runs }));
        Assert.Throws<VmmException>(() => next.Restore(state with { Inflated = null! }));
        Assert.Throws<VmmException>(() => next.Restore(state with { Version = 9 }));
        Assert.Throws<VmmException>(() => next.Restore(new RngState()));
    }

    [Fact]
    public void A_request_allocates_nothing()
    {
        using var device = new BalloonDevice(_everything, [_loop]);
        using var driver = new GuestDriver(device, default, StatsFeature | Reporting);
        driver.Start();
        uint page = (uint)(Filled(driver, 64 * 4096) >> 12);
        byte[] list = MemoryMarshal.AsBytes<uint>([page + 9, page, page + 1]).ToArray();
        ulong area = Filled(driver, 4096);
        int[] queues = [Inflate, Deflate, 4];
        foreach (int queue in queues)
            driver.Queues[queue].DisableInterrupts();
        long before = 0, allocated = -1;
        for (int i = 0; i < 1000; i++)
        {
            if (i == 500)
                _loop.Invoke(() => before = ThreadAllocations.Start());
            foreach (int queue in queues)
            {
                _ = queue == 4 ? driver.Queues[queue].Add([new(area, 4096, true)]) : driver.Queues[queue].Add(list, 0);
                driver.Queues[queue].Kick();
                Assert.True(SpinWait.SpinUntil(() => driver.Queues[queue].TryGetUsed(out _), 30_000));
            }
        }
        _loop.Invoke(() => allocated = ThreadAllocations.Since(before));
        Assert.Equal(0, allocated);
    }

    private static byte[] Message(ushort tag, ulong value) => [.. BitConverter.GetBytes(tag), .. BitConverter.GetBytes(value)];

    private static ulong Filled(GuestDriver driver, int length)
    {
        ulong area = (driver.Arena.Allocate((ulong)length + 4096) + 4095) & ~4095UL;
        Assert.True(driver.Memory.TryGetSpan(area, length, out Span<byte> bytes));
        bytes.Fill(0xA5);
        return area;
    }

    private static nint HostOf(GuestDriver driver, ulong address)
    {
        GuestRegion region = driver.Memory.Regions.First(r => address >= r.Start && address < r.End);
        return region.HostAddress + (nint)(address - region.Start);
    }
}
