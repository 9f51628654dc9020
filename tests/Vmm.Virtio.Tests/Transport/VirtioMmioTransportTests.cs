using FsCheck;
using FsCheck.Fluent;
using Vmm.Core;
using Vmm.Virtio.Queues;
using Vmm.Virtio.Transport;
using Vmm.Virtio.Transport.Mmio;

namespace Vmm.Virtio.Tests.Transport;

/// <summary>Register by register. Offsets and values are the specification's, not the program's names for them.</summary>
public sealed class VirtioMmioTransportTests : IDisposable
{
    private const ulong Base = 0xC000_1000;

    private readonly FakeRegion _region = new(3, 0x1_2345_6000);
    private readonly FakeDevice _device;
    private readonly FakeTrigger _interrupt = new();
    private readonly FakeDoorbells _doorbells = new();
    private readonly List<string> _log = [];
    private readonly VirtioMmioTransport _mmio;

    public VirtioMmioTransportTests()
    {
        _device = new FakeDevice(sharedMemory: [_region]);
        _mmio = Make(_device, _interrupt, _doorbells);
    }

    public void Dispose() => _mmio.Dispose();

    private VirtioMmioTransport Make(FakeDevice device, FakeTrigger interrupt, FakeDoorbells doorbells) =>
        new(device, BusAccess.NoMemory, Base, device.SharedMemory.Count == 0 ? [] : [0x10_0000_0000], interrupt, doorbells, _log.Add);

    [Fact]
    public void It_says_what_it_is()
    {
        Assert.Equal(0x74726976u, _mmio.Read32(0x000));
        Assert.Equal(2u, _mmio.Read32(0x004));
        Assert.Equal(2u, _mmio.Read32(0x008));
        Assert.Equal(0x204D4D56u, _mmio.Read32(0x00C));
        Assert.Equal(0u, _mmio.Read32(0x070));
        Assert.Equal(0u, _mmio.Read32(0x0FC));
    }

    [Fact]
    public void Features_are_read_in_windows()
    {
        Assert.Equal((uint)_device.Offered, _mmio.Read32(0x010));
        _mmio.Write32(0x014, 1);
        Assert.Equal((uint)(_device.Offered >> 32), _mmio.Read32(0x010));
        _mmio.Write32(0x014, 2);
        Assert.Equal(0u, _mmio.Read32(0x010));
    }

    [Fact]
    public void A_driver_is_taken_through_to_its_running_queues()
    {
        Start(FakeDevice.OwnFeature | VirtioFeatures.Version1);
        Assert.Equal(["reset", $"activate {FakeDevice.OwnFeature | VirtioFeatures.Version1:x}", "start 0", "start 2"], _device.Calls);
        VirtQueueSetup setup = _device.Running[2];
        Assert.Equal((16, 0x2_0000_2100UL, 0x2_0000_2200UL, 0x2_0000_2300UL), (setup.Size, setup.DescriptorArea, setup.DriverArea, setup.DeviceArea));
        Assert.Equal(VirtQueueState.Initial, setup.State);
        Assert.Equal(15u, _mmio.Read32(0x070));
        Assert.Equal(1u, _mmio.Read32(0x044));
        _mmio.Write32(0x030, 1);
        Assert.Equal(0u, _mmio.Read32(0x044));

        _device.Calls.Clear();
        _mmio.Write32(0x070, 0);
        Assert.Equal(["stop 0", "stop 2", "reset"], _device.Calls);
        Assert.Equal(0u, _mmio.Read32(0x070));
        _mmio.Write32(0x030, 2);
        Assert.Equal(0u, _mmio.Read32(0x044));
    }

    [Theory]
    [InlineData(0UL, false)]
    [InlineData(FakeDevice.OwnFeature, false)]
    [InlineData(VirtioFeatures.Version1, true)]
    [InlineData(VirtioFeatures.Version1 | FakeDevice.OwnFeature, true)]
    [InlineData(VirtioFeatures.Version1 | 1UL << 6, false)]
    [InlineData(VirtioFeatures.Version1 | 1UL << 63, false)]
    public void Features_that_were_not_offered_are_refused(ulong accepted, bool ok)
    {
        Negotiate(accepted);
        Assert.Equal(ok ? 11u : 3u, _mmio.Read32(0x070));
        _mmio.Write32(0x070, 15);
        Assert.Equal(ok ? 15u : 3u, _mmio.Read32(0x070));
        Assert.Equal(ok, _device.Activation != null);
    }

    [Fact]
    public void Features_above_bit_63_are_refused()
    {
        _mmio.Write32(0x070, 3);
        _mmio.Write32(0x024, 2);
        _mmio.Write32(0x020, 1);
        Negotiate(VirtioFeatures.Version1, reset: false);
        Assert.Equal(3u, _mmio.Read32(0x070));
    }

    [Fact]
    public void Features_stay_once_they_are_accepted()
    {
        Negotiate(VirtioFeatures.Version1);
        _mmio.Write32(0x024, 0);
        _mmio.Write32(0x020, uint.MaxValue);
        _mmio.Write32(0x070, 15);
        Assert.Equal(VirtioFeatures.Version1, _device.Activation!.Features);
    }

    [Fact]
    public void Queues_have_their_bounds()
    {
        uint[] sizes = [256, 64, 16, 0];
        for (uint queue = 0; queue < sizes.Length; queue++)
        {
            _mmio.Write32(0x030, queue);
            Assert.Equal(sizes[queue], _mmio.Read32(0x034));
        }
        _mmio.Write32(0x030, uint.MaxValue);
        Assert.Equal(0u, _mmio.Read32(0x034));
        _mmio.Write32(0x044, 1);
        Assert.Equal(0u, _mmio.Read32(0x044));

        _mmio.Write32(0x030, 1);
        foreach (uint wrong in new[] { 0u, 65u, 0x1_0020u, uint.MaxValue })
            _mmio.Write32(0x038, wrong);
        _mmio.Write32(0x044, 1);
        _mmio.Write32(0x038, 8);
        _mmio.Write32(0x080, 0x1000);
        Negotiate(VirtioFeatures.Version1, reset: false);
        _mmio.Write32(0x070, 15);
        Assert.Equal((64, 0UL), (_device.Running[1].Size, _device.Running[1].DescriptorArea));
    }

    [Theory]
    [InlineData(VirtioFeatures.Version1, false)]
    [InlineData(VirtioFeatures.Version1 | VirtioFeatures.RingPacked, true)]
    public void Only_a_packed_queue_has_any_size(ulong features, bool runs)
    {
        Negotiate(features);
        _mmio.Write32(0x030, 0);
        _mmio.Write32(0x038, 100);
        _mmio.Write32(0x044, 1);
        _mmio.Write32(0x070, 15);
        Assert.Equal(runs, _device.Running.ContainsKey(0));
        Assert.Equal(runs ? 15u : 0x4Fu, _mmio.Read32(0x070));
        Assert.Equal(runs ? [] : ["fake0: stopped until its driver resets it: queue 0: the size of a split queue, 100, is not a power of two"], _log);
    }

    [Fact]
    public void Doorbells_go_to_events()
    {
        Assert.Equal([(Base + 0x50, 4, 0UL), (Base + 0x50, 4, 1UL), (Base + 0x50, 4, 2UL)], _doorbells.All.Select(d => (d.Address, d.Length, d.Match ?? 99)));
        Start(VirtioFeatures.Version1);
        Assert.True(_doorbells.Ring(Base + 0x50, 4, 2));
        Assert.True(_device.Running[2].Doorbell.TryConsume());
        Assert.False(_device.Running[0].Doorbell.TryConsume());
        // What KVM does not take comes here.
        _mmio.Write32(0x050, 0x1234_0000);
        Assert.True(_device.Running[0].Doorbell.TryConsume());
        _mmio.Write32(0x050, 3);
        _mmio.Write(0x050, 0, 2);
        Assert.False(_device.Running[0].Doorbell.TryConsume());
        _mmio.Dispose();
        Assert.Empty(_doorbells.All);
        Assert.True(_interrupt.IsDisposed);
        Assert.True(_device.IsDisposed);
    }

    [Fact]
    public void Without_ioeventfds_the_register_serves()
    {
        using VirtioMmioTransport mmio = Make(new FakeDevice(), new FakeTrigger(), new FakeDoorbells { Refuses = true });
        mmio.Write32(0x050, 1);
        Assert.Equal(2u, mmio.Read32(0x004));
    }

    [Fact]
    public void Interrupts_have_causes_that_are_acknowledged()
    {
        Start(VirtioFeatures.Version1);
        _device.Activation!.Host.SignalQueue(2);
        Assert.Equal((1u, 1), (_mmio.Read32(0x060), _interrupt.Raised));
        _device.Activation.Host.SignalConfigurationChange();
        Assert.Equal((3u, 2), (_mmio.Read32(0x060), _interrupt.Raised));
        Assert.Equal(1u, _mmio.Read32(0x0FC));
        _mmio.Write32(0x064, 1);
        Assert.Equal(2u, _mmio.Read32(0x060));
        _mmio.Write32(0x070, 0);
        Assert.Equal(0u, _mmio.Read32(0x060));
    }

    [Fact]
    public void A_broken_device_says_so_once()
    {
        Start(VirtioFeatures.Version1);
        _device.Activation!.Host.NeedsReset("queue 0: a loop");
        _device.Activation.Host.NeedsReset("queue 1: another");
        Assert.Equal(["fake0: stopped until its driver resets it: queue 0: a loop"], _log);
        Assert.Equal(0x4Fu, _mmio.Read32(0x070));
        Assert.Equal((2u, 1), (_mmio.Read32(0x060), _interrupt.Raised));
        Assert.False(_mmio.IsRunning);
        Start(VirtioFeatures.Version1);
        Assert.Equal(15u, _mmio.Read32(0x070));
    }

    [Fact]
    public void A_signal_does_not_wait_for_a_queue_that_is_stopped()
    {
        Start(VirtioFeatures.Version1);
        IVirtioHost host = _device.Activation!.Host;
        // As an event loop does: another thread, which the one that stops the queue waits for with the lock held.
        _device.Stopping = queue => OtherThread.Run(() =>
        {
            host.SignalQueue(queue);
            host.SignalConfigurationChange();
            host.NeedsReset("too late");
        });
        _mmio.Write32(0x070, 0);
        Assert.Equal((0u, 0u), (_mmio.Read32(0x070), _mmio.Read32(0x060)));
    }

    [Fact]
    public void A_queue_is_reset_by_itself()
    {
        Start(VirtioFeatures.Version1 | VirtioFeatures.RingReset);
        _device.Calls.Clear();
        _mmio.Write32(0x030, 2);
        _mmio.Write32(0x0C0, 1);
        Assert.Equal(["stop 2"], _device.Calls);
        Assert.Equal((0u, 0u), (_mmio.Read32(0x0C0), _mmio.Read32(0x044)));
        _device.Ends = _ => new VirtQueueState(7, 7, true, true);
        _mmio.Write32(0x038, 4);
        _mmio.Write32(0x080, 0x9000);
        _mmio.Write32(0x044, 1);
        Assert.Equal(["stop 2", "start 2"], _device.Calls);
        VirtQueueSetup setup = _device.Running[2];
        Assert.Equal((4, 0x9000UL, 0UL, VirtQueueState.Initial), (setup.Size, setup.DescriptorArea, setup.DriverArea, setup.State));
        Assert.True(_device.Running.ContainsKey(0));
    }

    [Fact]
    public void A_queue_reset_needs_its_feature()
    {
        Start(VirtioFeatures.Version1);
        _mmio.Write32(0x0C0, 1);
        Assert.True(_device.Running.ContainsKey(2));
    }

    [Fact]
    public void A_queue_can_be_made_not_ready()
    {
        Start(VirtioFeatures.Version1);
        _device.Ends = _ => new VirtQueueState(7, 7, true, true);
        _mmio.Write32(0x030, 0);
        _mmio.Write32(0x044, 0);
        Assert.False(_device.Running.ContainsKey(0));
        Assert.Equal(0u, _mmio.Read32(0x044));
        _mmio.Write32(0x044, 1);
        Assert.Equal((VirtQueueState.Initial, 8), (_device.Running[0].State, _device.Running[0].Size));
    }

    [Fact]
    public void Shared_memory_is_found_by_its_id()
    {
        Assert.Equal(0x10_0000_0000UL, _region.Address);
        _mmio.Write32(0x0AC, 3);
        Assert.Equal([0x2345_6000u, 1u, 0u, 0x10u], new ulong[] { 0xB0, 0xB4, 0xB8, 0xBC }.Select(_mmio.Read32));
        _mmio.Write32(0x0AC, 0);
        Assert.Equal(Enumerable.Repeat(uint.MaxValue, 4), new ulong[] { 0xB0, 0xB4, 0xB8, 0xBC }.Select(_mmio.Read32));
    }

    [Fact]
    public void Configuration_has_every_width_and_an_end()
    {
        Assert.Equal(0x10UL, _mmio.Read(0x100, 1));
        Assert.Equal(0x1413UL, _mmio.Read(0x103, 2));
        Assert.Equal(0x1716151413121110UL, _mmio.Read(0x100, 8));
        Assert.Equal(0xFFFF1B1AUL, _mmio.Read(0x10A, 4));
        Assert.Equal(0xFFFFFFFFUL, _mmio.Read(0x10C, 4));
        _mmio.Write(0x10B, 0xABCD, 1);
        _mmio.Write(0x10B, 0, 2);
        _mmio.Write(0x100UL + 0x7FFF_FFFF, 0, 2);
        Assert.Equal(0xCD, _device.Configuration[11]);
    }

    [Theory]
    [InlineData(0x000, 1)]
    [InlineData(0x000, 2)]
    [InlineData(0x000, 8)]
    [InlineData(0x002, 4)]
    [InlineData(0x0FC, 8)]
    public void Registers_answer_to_aligned_words_only(ulong offset, int width)
    {
        _mmio.Write(offset, 0, width);
        Assert.Equal(ulong.MaxValue >> (64 - 8 * width), _mmio.Read(offset, width));
    }

    [Fact]
    public void A_defect_of_a_device_costs_the_device_only()
    {
        _device.Fails = new InvalidOperationException("oh");
        _ = _mmio.Read(0x100, 4);
        Assert.Equal(["fake0: stopped until its driver resets it: this program failed to read its configuration: InvalidOperationException: oh"], _log);
        Start(VirtioFeatures.Version1);
        Assert.Equal(0x4Fu, _mmio.Read32(0x070));
        _device.Fails = null;
        Start(VirtioFeatures.Version1);
        Assert.Equal(15u, _mmio.Read32(0x070));
    }

    [Fact]
    public void Pause_keeps_where_queues_stand()
    {
        Start(VirtioFeatures.Version1);
        _device.Ends = setup => new VirtQueueState((ushort)(setup.Index + 5), 3, true, false);
        _mmio.Pause();
        Assert.Empty(_device.Running);
        _mmio.Resume();
        Assert.Equal([(0, 5), (2, 7)], _device.Running.Values.OrderBy(s => s.Index).Select(s => (s.Index, (int)s.State.NextAvailable)));
    }

    [Fact]
    public void A_saved_device_goes_on_elsewhere()
    {
        Start(VirtioFeatures.Version1);
        _device.Configuration[0] = 0x77;
        _device.Ends = setup => new VirtQueueState((ushort)(setup.Index + 5), 3, true, false);
        _device.Activation!.Host.SignalQueue(0);
        _device.Activation.Host.SignalConfigurationChange();
        _mmio.Pause();
        VirtioTransportState state = _mmio.Save();

        var device = new FakeDevice(sharedMemory: [new FakeRegion(3, 0x1000)]);
        var interrupt = new FakeTrigger();
        using VirtioMmioTransport other = Make(device, interrupt, new FakeDoorbells());
        other.Restore(state);
        Assert.Equal(["reset", "restore", "activate 100000000"], device.Calls);
        Assert.Empty(device.Running);
        Assert.Equal(0, interrupt.Raised);
        other.Resume();
        Assert.Equal(1, interrupt.Raised);
        Assert.Equal((15u, 3u, 1u, 0x77), (other.Read32(0x070), other.Read32(0x060), other.Read32(0x0FC), device.Configuration[0]));
        Assert.Equal(
            _device.QueueSizes.Count - 1,
            device.Running.Values.Count(s => s.State.NextAvailable == s.Index + 5 && s.Size == (s.Index == 0 ? 8 : 16)));
        other.Pause();
        VirtioTransportState again = other.Save();
        Assert.Equal(state.Queues, again.Queues);
        Assert.Equal(state with { Queues = [], Device = null }, again with { Queues = [], Device = null });
    }

    [Fact]
    public void A_state_that_does_not_fit_is_refused()
    {
        _mmio.Pause();
        VirtioTransportState state = _mmio.Save();
        VirtioQueueState queue = state.Queues[0];
        foreach (VirtioTransportState wrong in new[]
        {
            state with { Version = 2 }, state with { Type = VirtioDeviceType.Network }, state with { Mmio = null }, state with { Device = null },
            state with { Queues = [queue] }, state with { Queues = [queue, queue, queue with { Size = 17 }] }, state with { Status = 11, DriverFeatures = 1 },
            state with { Status = 7 }, state with { Status = 4, DriverFeatures = VirtioFeatures.Version1 }, state with { Status = 11 },
            state with { Status = 15, DriverFeatures = VirtioFeatures.Version1, HasUnknownFeatures = true },
        })
        {
            Assert.Throws<VmmException>(() => _mmio.Restore(wrong));
        }
        Assert.Throws<InvalidOperationException>(() => Make(new FakeDevice(), new FakeTrigger(), new FakeDoorbells()).Save());
    }

    [Fact]
    public void Status_follows_the_model()
    {
        var step = Gen.Elements<byte>(0, 1, 2, 3, 4, 8, 11, 15, 7, 64, 128, 16, 255);
        Prop.ForAll(Gen.ArrayOf(step).ToArbitrary(), Arb.From(Gen.Elements(0UL, VirtioFeatures.Version1, VirtioFeatures.Version1 | 2)), (steps, features) =>
        {
            _mmio.Write32(0x070, 0);
            int model = 0;
            foreach (byte value in steps)
            {
                WriteFeatures(features);
                _mmio.Write32(0x070, value);
                if (value == 0)
                {
                    model = 0;
                }
                else
                {
                    int wanted = value & ~model;
                    model |= value & 0x83;
                    if ((wanted & 8) != 0 && (model & 0x83) == 3 && features == VirtioFeatures.Version1)
                        model |= 8;
                    if ((wanted & 4) != 0 && (model & 0x88) == 8)
                        model |= 4;
                }
                Assert.Equal((uint)model, _mmio.Read32(0x070));
                Assert.Equal((model & 4) != 0, _device.Activation != null);
            }
        }).QuickCheckThrowOnFailure();
    }

    [Fact]
    public void No_access_throws()
    {
        var access = from write in ArbMap.Default.GeneratorFor<bool>()
                     from offset in Gen.OneOf(Gen.Choose(0, 0x120), Gen.Choose(0, 0xFFF), Gen.Choose(0, 0x48).Select(i => i * 4))
                     from width in Gen.OneOf(Gen.Constant(4), Gen.Choose(1, 8))
                     from value in Gen.OneOf(Gen.Choose(0, 16), Gen.Choose(int.MinValue, int.MaxValue))
                     select (write, offset, width, value);
        Prop.ForAll(Gen.ArrayOf(access, 300).ToArbitrary(), accesses =>
        {
            foreach ((bool write, int offset, int width, int value) in accesses)
            {
                if (write)
                    _mmio.Write((ulong)offset, (ulong)value, width);
                else
                    _mmio.Read((ulong)offset, width);
            }
        }).QuickCheckThrowOnFailure();
        Assert.DoesNotContain(_log, line => line.Contains("this program", StringComparison.Ordinal));
    }

    /// <summary>As a driver does it: reset, features, two queues (one with a smaller size), DRIVER_OK.</summary>
    private void Start(ulong features)
    {
        Negotiate(features);
        foreach (uint queue in new[] { 0u, 2u })
        {
            _mmio.Write32(0x030, queue);
            if (queue == 0)
                _mmio.Write32(0x038, 8);
            _mmio.Write32(0x080, 0x2100);
            _mmio.Write32(0x084, queue);
            _mmio.Write32(0x090, 0x2200);
            _mmio.Write32(0x094, queue);
            _mmio.Write32(0x0A0, 0x2300);
            _mmio.Write32(0x0A4, queue);
            _mmio.Write32(0x044, 1);
        }
        _mmio.Write32(0x070, 15);
    }

    private void Negotiate(ulong features, bool reset = true)
    {
        if (reset)
            _mmio.Write32(0x070, 0);
        _mmio.Write32(0x070, 1);
        _mmio.Write32(0x070, 3);
        WriteFeatures(features);
        _mmio.Write32(0x070, 11);
    }

    private void WriteFeatures(ulong features)
    {
        _mmio.Write32(0x024, 0);
        _mmio.Write32(0x020, (uint)features);
        _mmio.Write32(0x024, 1);
        _mmio.Write32(0x020, (uint)(features >> 32));
    }
}
