using FsCheck;
using FsCheck.Fluent;
using Vmm.Core;
using Vmm.Core.Events;
using Vmm.Core.Memory;
using Vmm.Virtio.Devices.Pmem;
using Vmm.Virtio.SharedMemory;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices.Pmem;

/// <summary>The persistent memory device (VIRTIO 1.3 §5.19).</summary>
public sealed class PmemDeviceTests : IDisposable
{
    private const ulong MiB = 1 << 20;
    private const ulong Home = 1UL << 32;

    private readonly EventLoop _loop = new("test");
    private readonly FakeSlots _slots = new();
    private readonly string _path = Path.GetTempFileName();

    public void Dispose()
    {
        _loop.Dispose();
        File.Delete(_path);
    }

    [Fact]
    public void Its_memory_is_where_the_layout_has_room_and_the_configuration_says_so()
    {
        using PmemDevice device = Make();
        (AddressRange range, nint host, bool readOnly) = Assert.Single(_slots.Mapped).Value;
        Assert.Equal((new AddressRange(Home, 4 * MiB), false), (range, readOnly));
        Assert.NotEqual(0, host);
        Assert.Equal(16, device.ConfigurationLength);
        using var driver = new GuestDriver(device);
        Assert.Equal((Home, 4 * MiB), (driver.ConfigurationField(0, 8), driver.ConfigurationField(8, 8)));
        Assert.Equal(4 * MiB >> 16, driver.ConfigurationField(10, 2));
        device.Dispose();
        Assert.Empty(_slots.Mapped);
    }

    [Fact]
    public void A_place_that_is_taken_is_an_error()
    {
        Assert.True(_slots.TryMap(Home, 4096, 1, false, out _));
        using PmemFile file = PmemFile.Open(new PmemConfig(_path, 4 * MiB));
        Assert.Equal(VmmErrorKind.Host, Assert.Throws<VmmException>(() => new PmemDevice(file, Home, _slots, [_loop])).Kind);
    }

    [Fact]
    public void A_transport_moves_it_and_the_configuration_follows()
    {
        Assert.True(_slots.TryMap(0, 2 * MiB, 1, false, out int ram));
        using PmemDevice device = Make();
        SharedMemoryRegion region = Assert.Single(device.SharedMemory);
        Assert.Equal((0, 4 * MiB), (region.Id, region.Length));
        Assert.NotEqual(0UL, device.OfferedFeatures & 1);
        using var driver = new GuestDriver(device, features: 1);
        driver.Start();
        ulong Start() => driver.ConfigurationField(0, 8);
        ulong? Mapped() => _slots.Mapped.Where(m => m.Key != ram).Select(m => (ulong?)m.Value.Range.Start).SingleOrDefault();

        region.Place(0x80_0000_0000);
        Assert.Equal((0x80_0000_0000UL, 0x80_0000_0000UL), (Start(), Mapped()));
        int moves = _slots.Moves;
        region.Place(0x80_0000_0000);
        Assert.Equal(moves, _slots.Moves);
        region.Place(null);
        Assert.Equal((Home, Home), (Start(), Mapped()));
        // Over RAM there is RAM.
        region.Place(0);
        Assert.Equal((0UL, null), (Start(), Mapped()));
        region.Place(0);
        Assert.Null(Mapped());
        region.Place(0x40_0000);
        Assert.Equal((0x40_0000UL, 0x40_0000UL), (Start(), Mapped()));
    }

    [Theory]
    [MemberData(nameof(RingFeatures.AllData), MemberType = typeof(RingFeatures))]
    public void Flushes_are_answered_whatever_the_ring(int rings)
    {
        using PmemDevice device = Make();
        using var driver = new GuestDriver(device, RingFeatures.Of(rings));
        driver.Start();
        for (int i = 0; i < 200; i++)
            Assert.Equal([0, 0, 0, 0], driver.Queues[0].Transact([0, 0, 0, 0], 4, indirect: RingFeatures.Of(rings).Indirect && i % 2 == 0));
        driver.Restart();
        Assert.Equal([0, 0, 0, 0], driver.Queues[0].Transact([0, 0, 0, 0], 4));
        driver.Reset();
        driver.Start();
        Assert.Equal([0, 0, 0, 0], driver.Queues[0].Transact([0, 0, 0, 0], 4));
        Assert.Equal(202, device.Counters.Flushes);
        Assert.Empty(driver.Host.ResetReasons);
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public async Task Requests_during_a_flush_share_the_next_one_and_a_stop_waits_for_both(int rings)
    {
        using var gate = new SemaphoreSlim(0);
        using var entered = new SemaphoreSlim(0);
        int flushes = 0;
        using PmemDevice device = Make(() =>
        {
            entered.Release();
            gate.Wait();
            return ++flushes == 2 ? 5 : 0;
        });
        using var driver = new GuestDriver(device, RingFeatures.Of(rings));
        DriverQueue queue = driver.Queues[0];
        driver.Start();
        queue.Add([0, 0, 0, 0], 4);
        queue.Kick();
        entered.Wait();
        for (int i = 0; i < 5; i++)
            queue.Add([0, 0, 0, 0], 4);
        queue.Kick();
        // Both loops of the queue's thread go on; nothing is answered before the flush that covers it.
        _loop.Invoke(() => { });
        Assert.False(queue.TryGetUsed(out _));
        gate.Release();
        Assert.Equal([0, 0, 0, 0], queue.Read(queue.WaitUsed()));
        entered.Wait();
        Assert.False(queue.TryGetUsed(out _));
        Task<VirtioDeviceState> stopped = Task.Run(() =>
        {
            driver.Stop();
            return device.Save();
        });
        gate.Release();
        await stopped.WaitAsync(TimeSpan.FromSeconds(30));
        for (int i = 0; i < 5; i++)
        {
            Assert.True(queue.TryGetUsed(out UsedBuffer used));
            // This one failed: all that it covered did.
            Assert.Equal([1, 0, 0, 0], queue.Read(used));
        }
        Assert.Equal((2, 1L, 2L, 6L), (flushes, device.Counters.FileErrors, device.Counters.FileFlushes, device.Counters.Flushes));
    }

    [Fact]
    public void Requests_that_are_none_fail_and_the_device_goes_on()
    {
        using PmemDevice device = Make();
        using var driver = new GuestDriver(device);
        DriverQueue queue = driver.Queues[0];
        driver.Start();
        Assert.Equal([1, 0, 0, 0], queue.Transact([1, 0, 0, 0], 4));
        Assert.Equal([1, 0, 0, 0], queue.Transact([0, 0, 0], 4));
        Assert.Equal([1, 0, 0, 0], queue.Transact([], 8));
        Assert.Equal([], queue.Transact([0, 0, 0, 0], 3));
        Assert.Equal([], queue.Transact([0, 0, 0, 0], 0));
        Assert.Equal(5, device.Counters.Malformed);
        Assert.Equal([0, 0, 0, 0], queue.Transact([0, 0, 0, 0, 9, 9], 400));
    }

    [Fact]
    public void Any_requests_get_one_answer_each()
    {
        using PmemDevice device = Make();
        using var driver = new GuestDriver(device, RingFeatures.Of(15));
        DriverQueue queue = driver.Queues[0];
        driver.Start();
        Gen<(byte[] Bytes, int Room)[]> requests =
            (from bytes in Gen.OneOf(Gen.Constant(new byte[4]), ArbMap.Default.GeneratorFor<byte[]>())
             from room in Gen.Choose(0, 6)
             where bytes.Length + room > 0
             select (bytes, room)).ArrayOf();
        Prop.ForAll(requests.ToArbitrary(), all =>
        {
            var open = new Dictionary<int, (byte[] Bytes, int Room)>();
            foreach ((byte[] bytes, int room) in all)
            {
                int token = queue.Add(bytes, room);
                if (token >= 0)
                    open.Add(token, (bytes, room));
            }
            queue.Kick();
            while (open.Count > 0)
            {
                UsedBuffer used = queue.WaitUsed();
                if (!open.Remove(used.Token, out (byte[] Bytes, int Room) request))
                    return false;
                bool right = request.Bytes is [0, 0, 0, 0, ..] && request.Room >= 4;
                byte[] expected = request.Room < 4 ? [] : right ? [0, 0, 0, 0] : [1, 0, 0, 0];
                if (used.Written != (uint)expected.Length || !queue.Read(used).AsSpan().SequenceEqual(expected))
                    return false;
            }
            return !driver.Host.IsResetNeeded;
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(300));
    }

    [Fact]
    public void A_state_of_another_length_is_refused()
    {
        using PmemDevice device = Make();
        VirtioDeviceState state = device.Save();
        device.Restore(state);
        Assert.Throws<VmmException>(() => device.Restore(new PmemState(2 * MiB)));
        Assert.Throws<VmmException>(() => device.Restore((PmemState)state with { Version = 2 }));
    }

    private PmemDevice Make(Func<int>? flush = null) => new(PmemFile.Open(new PmemConfig(_path, 4 * MiB)), Home, _slots, [_loop], flush);
}
