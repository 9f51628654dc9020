using System.Buffers.Binary;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Core;
using Vmm.Core.Events;
using Vmm.Core.Memory;
using Vmm.Virtio.Devices.Mem;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Devices.Mem;

/// <summary>The memory device (VIRTIO 1.3 §5.15).</summary>
public sealed class MemDeviceTests : IDisposable
{
    private const ulong MiB = 1 << 20;
    private const ulong GiB = 1 << 30;
    private const ulong Block = 2 * MiB;
    private const ulong Base = 1UL << 32;
    private const byte Ack = 0, Nack = 1, Error = 3;
    private const int UsableSize = 32, PluggedSize = 40, RequestedSize = 48;

    private readonly EventLoop _loop = new("test");

    public void Dispose() => _loop.Dispose();

    [Fact]
    public void The_configuration_space_is_the_specifications()
    {
        using GuestRam ram = Reserve(GiB);
        using var device = new MemDevice(new MemConfig(GiB, 64 * MiB), ram.Hotplug!, [_loop]);
        using var driver = new GuestDriver(device);
        Assert.Equal(56, device.ConfigurationLength);
        Assert.Equal(
            [Block, 0UL, Base, GiB, 320 * MiB, 0UL, 64 * MiB],
            Enumerable.Range(0, 7).Select(i => driver.ConfigurationField(i * 8, 8)));
        Assert.NotEqual(0UL, device.OfferedFeatures & 2);
        Assert.Equal(320 * MiB >> 8, driver.ConfigurationField(UsableSize + 1, 4));
    }

    [Theory]
    [InlineData(0UL, 0UL)]
    [InlineData(MiB, 0UL)]
    [InlineData(GiB + 4096, 0UL)]
    [InlineData(1UL << 60, 0UL)]
    [InlineData(GiB, MiB)]
    [InlineData(GiB, GiB + Block)]
    public void Sizes_that_cannot_be_are_refused(ulong size, ulong requested) =>
        Assert.Equal(VmmErrorKind.Configuration, Assert.Throws<VmmException>(new MemConfig(size, requested).Validate).Kind);

    [Fact]
    public void A_live_change_of_the_requested_size_tells_the_driver()
    {
        using GuestRam ram = Reserve(GiB);
        using var device = new MemDevice(new MemConfig(GiB), ram.Hotplug!, [_loop]);
        // Nobody is there to be told.
        device.SetRequestedSize(2 * MiB);
        using var driver = new GuestDriver(device);
        driver.Start();
        device.SetRequestedSize(900 * MiB);
        Assert.Equal(1, driver.Host.ConfigurationChanges);
        device.SetRequestedSize(900 * MiB);
        Assert.Equal(1, driver.Host.ConfigurationChanges);
        Assert.Equal((900 * MiB, GiB), (driver.ConfigurationField(RequestedSize, 8), driver.ConfigurationField(UsableSize, 8)));
        Assert.Equal(Ack, Plug(driver, 0, 1));
        // What is plugged stays within reach.
        device.SetRequestedSize(0);
        Assert.Equal((0UL, GiB), (driver.ConfigurationField(RequestedSize, 8), driver.ConfigurationField(UsableSize, 8)));
        Assert.Equal(Ack, Request(driver, 2));
        Assert.Equal(0UL, driver.ConfigurationField(UsableSize, 8));
        Assert.Throws<VmmException>(() => device.SetRequestedSize(GiB + Block));
        Assert.Throws<VmmException>(() => device.SetRequestedSize(4096));
    }

    [Fact]
    public void Each_wrong_request_has_its_answer()
    {
        using GuestRam ram = Reserve(GiB);
        using var device = new MemDevice(new MemConfig(GiB, 8 * MiB), ram.Hotplug!, [_loop]);
        using var driver = new GuestDriver(device, features: 2);
        driver.Start();
        Assert.Equal(Ack, Plug(driver, 3, 2));
        Assert.Equal(Error, Plug(driver, 4, 1));
        Assert.Equal(Error, Plug(driver, 0, 0));
        Assert.Equal(Nack, Plug(driver, 10, 3));
        Assert.Equal(Ack, Plug(driver, 10, 2));
        Assert.Equal(Nack, Plug(driver, 20, 1));
        Assert.Equal(Error, Unplug(driver, 2, 2));
        Assert.Equal(Error, Unplug(driver, 4, 2));
        Assert.Equal(Error, Request(driver, 0, Base + 4096, 1));
        Assert.Equal(Error, Request(driver, 0, Base - Block, 1));
        Assert.Equal(Error, Request(driver, 0, 0, 1));
        Assert.Equal(Error, Request(driver, 0, ulong.MaxValue & ~(Block - 1), ushort.MaxValue));
        // Usable is 264 MiB: blocks 0 to 131.
        Assert.Equal(Error, Unplug(driver, 132, 1));
        Assert.Equal(Error, State(driver, 131, 2)[0]);
        Assert.Equal([Ack, 1], State(driver, 131, 1));
        Assert.Equal([Ack, 0], State(driver, 3, 2));
        Assert.Equal([Ack, 2], State(driver, 2, 2));
        Assert.Equal(Error, Request(driver, 4, Base, 1));
        Assert.Equal(Error, driver.Queues[0].Transact(new byte[23], 10)[0]);
        Assert.Equal((4 * Block, 4 * Block), (device.PluggedSize, driver.ConfigurationField(PluggedSize, 8)));
        Assert.Empty(driver.Host.ResetReasons);
        driver.Queues[0].Add(new byte[24], 9);
        driver.Queues[0].Kick();
        driver.Host.WaitUntil(() => driver.Host.IsResetNeeded);
        Assert.Equal("queue 0: a request has no room for its response", Assert.Single(driver.Host.ResetReasons));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Unplugged_memory_goes_back_to_the_host_and_plugged_memory_takes_dma(bool shared)
    {
        using GuestRam ram = Reserve(64 * MiB, shared);
        using var device = new MemDevice(new MemConfig(64 * MiB, 64 * MiB), ram.Hotplug!, [_loop]);
        using var driver = new GuestDriver(device);
        driver.Start();
        Assert.Equal(Ack, Plug(driver, 0, 16));
        Assert.True(ram.Memory.TryGetSpan(Base, (int)(32 * MiB), out Span<byte> plugged));
        plugged.Fill(0xA5);
        Assert.Equal(32 * MiB, PresentBytes(ram.Hotplug!));
        Assert.Equal(Ack, Unplug(driver, 4, 8));
        Assert.Equal(16 * MiB, PresentBytes(ram.Hotplug!));
        Assert.Equal(0xA5, plugged[(int)(4 * Block) - 1]);
        Assert.Equal(0, plugged[(int)(4 * Block)]);
        Assert.Equal(0xA5, plugged[(int)(12 * Block)]);
        Assert.Equal(Ack, Request(driver, 2));
        Assert.Equal(0UL, PresentBytes(ram.Hotplug!));
        Assert.Equal((0UL, 32L << 20, 32L << 20), (device.PluggedSize, device.Counters.PluggedBytes, device.Counters.UnpluggedBytes));
    }

    [Theory]
    [MemberData(nameof(RingFeatures.SomeData), MemberType = typeof(RingFeatures))]
    public void Requests_that_take_more_than_one_turn_are_answered_in_order_also_by_a_stop(int rings)
    {
        using GuestRam ram = Reserve(4 * GiB);
        using var device = new MemDevice(new MemConfig(4 * GiB, 4 * GiB), ram.Hotplug!, [_loop]);
        using var driver = new GuestDriver(device, RingFeatures.Of(rings));
        DriverQueue queue = driver.Queues[0];
        driver.Start();
        Assert.Equal(Ack, Plug(driver, 0, 2048));
        Assert.Equal(4 * GiB, device.PluggedSize);
        queue.Add(Bytes(1, Base, 1024), 10);
        queue.Add(Bytes(3, Base, 1024), 10);
        queue.Add(Bytes(2), 10);
        queue.Add(Bytes(3, Base, 2048), 10);
        queue.Kick();
        byte[][] answers = [.. Enumerable.Range(0, 4).Select(_ => queue.Read(queue.WaitUsed()))];
        Assert.Equal([0, 0, 0, 0], answers.Select(a => (int)a[0]));
        Assert.Equal((1, 1), (answers[1][8], answers[3][8]));
        Assert.Equal(0UL, device.PluggedSize);
        Assert.Equal(Ack, Plug(driver, 0, 2048));
        queue.Add(Bytes(2), 10);
        queue.Kick();
        driver.Restart();
        Assert.Equal(Ack, queue.Read(queue.WaitUsed())[0]);
        Assert.Equal(0UL, device.PluggedSize);
    }

    [Fact]
    public void Memory_stays_plugged_when_a_driver_resets_and_goes_when_the_machine_does()
    {
        using GuestRam ram = Reserve(64 * MiB);
        using var device = new MemDevice(new MemConfig(64 * MiB, 8 * MiB), ram.Hotplug!, [_loop]);
        using var driver = new GuestDriver(device);
        driver.Start();
        Assert.Equal(Ack, Plug(driver, 1, 2));
        driver.Reset();
        Assert.Equal(4 * MiB, device.PluggedSize);
        ram.Memory.Write(Base + Block, 1UL);
        device.ResetMachine();
        Assert.Equal((0UL, 8 * MiB, 0UL), (device.PluggedSize, device.RequestedSize, PresentBytes(ram.Hotplug!)));
    }

    [Fact]
    public void Damaged_states_are_refused()
    {
        using GuestRam ram = Reserve(64 * MiB);
        using var device = new MemDevice(new MemConfig(64 * MiB, 8 * MiB), ram.Hotplug!, [_loop]);
        var state = (MemState)device.Save();
        foreach (MemState wrong in (MemState[])[
            state with { Version = 9 },
            state with { Address = 0 },
            state with { RegionSize = GiB },
            state with { UsableRegionSize = GiB },
            state with { UsableRegionSize = 1 },
            state with { RequestedSize = GiB },
            state with { Plugged = [] },
            state with { Plugged = [1UL << 32] },
            state with { Plugged = null! }])
            Assert.Throws<VmmException>(() => device.Restore(wrong));
        device.Restore(state with { Plugged = [0b101] });
        Assert.Equal(2 * Block, device.PluggedSize);
    }

    /// <summary>Sequences of requests, live changes, restarts, resets and restores against a plain array of blocks.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(15)]
    public void It_does_what_a_model_does(int rings)
    {
        const int Blocks = 160;
        Gen<(int Kind, int First, int Count, int Skew)> step =
            from kind in Gen.Frequency((6, Gen.Constant(0)), (4, Gen.Constant(1)), (4, Gen.Constant(3)), (1, Gen.Choose(2, 9)))
            from first in Gen.Frequency((8, Gen.Choose(0, 40)), (1, Gen.Choose(-2, Blocks + 2)))
            from count in Gen.Frequency((8, Gen.Choose(1, 12)), (1, Gen.Elements(0, 100, Blocks, ushort.MaxValue)))
            from skew in Gen.Frequency((20, Gen.Constant(0)), (1, Gen.Elements(1, 4096, (int)MiB)))
            select (kind, first, count, skew);
        Prop.ForAll(step.ArrayOf().ToArbitrary(), steps =>
        {
            using GuestRam ram = Reserve(Blocks * Block);
            using var device = new MemDevice(new MemConfig(Blocks * Block, 20 * Block), ram.Hotplug!, [_loop]);
            using var driver = new GuestDriver(device, RingFeatures.Of(rings));
            driver.Start();
            bool[] model = new bool[Blocks];
            int requested = 20, usable = 148;
            foreach ((int kind, int first, int count, int skew) in steps)
            {
                switch (kind)
                {
                    case 5:
                        driver.Restart();
                        break;
                    case 6:
                        driver.Reset();
                        driver.Start();
                        break;
                    case 7:
                        if (requested == Math.Clamp(first, 0, Blocks))
                            break;
                        requested = Math.Clamp(first, 0, Blocks);
                        device.SetRequestedSize((ulong)requested * Block);
                        int wanted = requested == 0 ? 0 : Math.Min(Blocks, requested + 128);
                        usable = model.Any(b => b) ? Math.Max(usable, wanted) : wanted;
                        break;
                    case 8:
                        VirtioDeviceState saved = device.Save();
                        device.Restore(saved);
                        break;
                    default:
                        byte[] answer = driver.Queues[0].Transact(Bytes((ushort)kind, Base + ((ulong)(long)first * Block) + (ulong)skew, (ushort)count), 10);
                        if (!answer.AsSpan().SequenceEqual(Expect(model, kind, first, count, skew, requested, ref usable)))
                            return false;
                        break;
                }
                if (driver.ConfigurationField(PluggedSize, 8) != (ulong)model.Count(b => b) * Block
                    || driver.ConfigurationField(UsableSize, 8) != (ulong)usable * Block
                    || driver.ConfigurationField(RequestedSize, 8) != (ulong)requested * Block)
                    return false;
            }
            return !driver.Host.IsResetNeeded;
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(150));
    }

    private static byte[] Expect(bool[] model, int kind, int first, int count, int skew, int requested, ref int usable)
    {
        byte[] answer = new byte[10];
        bool inside = first >= 0 && count > 0 && skew == 0 && first + count <= usable;
        Span<bool> blocks = inside ? model.AsSpan(first, count) : default;
        switch (kind)
        {
            case 2:
                model.AsSpan().Clear();
                usable = requested == 0 ? 0 : Math.Min(model.Length, requested + 128);
                break;
            case 0 when inside && !blocks.Contains(true):
                if (model.Count(b => b) + count > requested)
                    answer[0] = Nack;
                else
                    blocks.Fill(true);
                break;
            case 1 when inside && !blocks.Contains(false):
                blocks.Clear();
                break;
            case 3 when inside:
                answer[8] = (byte)(!blocks.Contains(false) ? 0 : !blocks.Contains(true) ? 1 : 2);
                break;
            default:
                answer[0] = Error;
                break;
        }
        return answer;
    }

    private static GuestRam Reserve(ulong size, bool shared = false) =>
        GuestRam.Allocate([(0, 4096)], new GuestRamOptions(Shared: shared), new AddressRange(Base, size));

    private static byte Plug(GuestDriver driver, int first, ushort count) => Request(driver, 0, Base + ((ulong)first * Block), count);

    private static byte Unplug(GuestDriver driver, int first, ushort count) => Request(driver, 1, Base + ((ulong)first * Block), count);

    private static byte[] State(GuestDriver driver, int first, ushort count)
    {
        byte[] answer = driver.Queues[0].Transact(Bytes(3, Base + ((ulong)first * Block), count), 10);
        return [answer[0], answer[8]];
    }

    private static byte Request(GuestDriver driver, ushort type, ulong address = 0, ushort count = 0)
    {
        byte[] answer = driver.Queues[0].Transact(Bytes(type, address, count), 10);
        Assert.Equal(10, answer.Length);
        Assert.Equal(0, answer[1]);
        return answer[0];
    }

    private static byte[] Bytes(ushort type, ulong address = 0, ushort count = 0)
    {
        byte[] bytes = new byte[24];
        BinaryPrimitives.WriteUInt16LittleEndian(bytes, type);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(8), address);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(16), count);
        return bytes;
    }

    /// <summary>Bytes of the region that have a page of the host, from /proc/self/pagemap.</summary>
    private static ulong PresentBytes(GuestRegion region)
    {
        byte[] entries = new byte[region.Length / 4096 * 8];
        using FileStream map = File.OpenRead("/proc/self/pagemap");
        map.Position = region.HostAddress / 4096 * 8;
        map.ReadExactly(entries);
        ulong pages = 0;
        for (int i = 7; i < entries.Length; i += 8)
            pages += (ulong)(entries[i] >> 7);
        return pages * 4096;
    }
}
