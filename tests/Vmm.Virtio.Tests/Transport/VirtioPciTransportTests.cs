using FsCheck;
using FsCheck.Fluent;
using Vmm.Core;
using Vmm.Virtio.Queues;
using Vmm.Virtio.Transport;

namespace Vmm.Virtio.Tests.Transport;

/// <summary>Configuration space, BARs and registers. Offsets and values are the specifications', not the program's names for them.</summary>
public sealed class VirtioPciTransportTests : IDisposable
{
    private const ulong Apic = 0xFEE0_0000;

    private readonly PciMachine _pci = new();

    public void Dispose() => _pci.Dispose();

    /// <summary>As Linux does before a kexec.</summary>
    [Fact]
    public void Without_bus_mastering_queues_stand_still_where_they_are()
    {
        _pci.Enable().Start();
        _pci.Device.Ends = setup => setup.State with { NextAvailable = 7 };
        Assert.Equal(3, _pci.Device.Running.Count);
        _pci.SetConfig(0x04, 2, 2);
        Assert.Empty(_pci.Device.Running);
        _pci.SetConfig(0x04, 6, 2);
        Assert.Equal(3, _pci.Device.Running.Count);
        Assert.All(_pci.Device.Running.Values, setup => Assert.Equal(7, setup.State.NextAvailable));

        // The next kernel's driver begins with a reset, and may never switch it on.
        _pci.SetConfig(0x04, 2, 2);
        _pci.Start();
        Assert.Equal(3, _pci.Device.Running.Count);
    }

    [Fact]
    public void It_says_what_it_is()
    {
        Assert.Equal(0x1042_1AF4UL, _pci.Config(0x00, 4));
        Assert.Equal(0x0180_0001UL, _pci.Config(0x08, 4));
        Assert.Equal(0x1100_1AF4UL, _pci.Config(0x2C, 4));
        Assert.Equal(1UL, _pci.Config(0x3D, 1));
        Assert.Equal(0UL, _pci.Config(0x0E, 1));
        Assert.Equal(0UL, _pci.Config(0x04, 2));
        Assert.Equal(0x4UL, _pci.Config(0x10, 4) & 0xF);
        Assert.Equal(0UL, _pci.Config(0x100, 4));
    }

    [Theory]
    [InlineData(1, 0x0200_00)]
    [InlineData(3, 0x0780_00)]
    [InlineData(4, 0xFF00_00)]
    public void Classes_are_those_of_the_device_types(int type, uint expected) =>
        Assert.Equal(expected, Vmm.Virtio.Transport.Pci.VirtioPciRegisters.ClassOf((VirtioDeviceType)type));

    [Fact]
    public void Bars_can_be_sized_and_lie_where_they_were_assigned()
    {
        using var pci = new PciMachine(new FakeDevice(sharedMemory: [new FakeRegion(1, 0x5000), new FakeRegion(2, 0x40_0000)]));
        Assert.Equal(PciMachine.Registers, pci.Bar(0));
        Assert.Equal(PciMachine.SharedMemory, pci.Bar(2));
        Assert.Equal(0xCUL, pci.Config(0x18, 4) & 0xF);
        foreach ((int bar, ulong size) in new[] { (0, pci.Pci.RegistersSize), (2, 0x80_0000UL) })
        {
            ulong old = pci.Bar(bar);
            pci.SetBar(bar, ulong.MaxValue);
            Assert.Equal(size, ~pci.Bar(bar) + 1);
            pci.SetBar(bar, old);
        }
        Assert.Equal(0x80_0000UL, pci.Pci.SharedMemorySize);
        Assert.Empty(pci.Log);
    }

    /// <summary>What a driver checks before it uses the structures: they lie in BARs, aligned, large enough, and apart.</summary>
    [Fact]
    public void The_list_of_capabilities_leads_to_every_structure()
    {
        using var pci = new PciMachine(new FakeDevice(sharedMemory: [new FakeRegion(7, 0x1_0000_5000)]));
        Assert.Equal([0x11, 9, 9, 9, 9, 9, 9], pci.Capabilities().Select(c => (int)c.Id));
        var ranges = new List<(ulong Start, ulong End)>();
        foreach ((byte type, int capLength, uint least, uint alignment) in new (byte, int, uint, uint)[] { (1, 16, 56, 4), (2, 20, 2, 2), (3, 16, 1, 1), (4, 16, 12, 4) })
        {
            (ulong address, uint length, int at) = pci.Structure(type);
            Assert.Equal((ulong)capLength, pci.Config(at + 2, 1));
            Assert.Equal(0UL, pci.Config(at + 4, 1));
            Assert.True(length >= least && address % alignment == 0);
            Assert.True(pci.Config(at + 8, 4) + length <= pci.Pci.RegistersSize);
            ranges.Add((address, address + length));
        }
        Assert.Equal(4UL, pci.Config(pci.Structure(2).At + 16, 4));
        ranges.Add((pci.MsixTable, pci.MsixTable + 4 * 16));
        ranges.Add((pci.MsixPending, pci.MsixPending + 8));
        Assert.Equal(3UL, pci.Config(pci.Msix + 2, 2) & 0x7FF);
        Assert.Equal(0UL, pci.MsixPending % 8);
        ranges.Sort();
        for (int i = 1; i < ranges.Count; i++)
            Assert.True(ranges[i - 1].End <= ranges[i].Start && ranges[i - 1].Start >> 12 != ranges[i].Start >> 12);

        int shm = pci.Structure(8).At;
        Assert.Equal([24UL, 8UL, 2UL, 7UL], new[] { 2, 3, 4, 5 }.Select(o => pci.Config(shm + o, 1)));
        Assert.Equal((0UL, 0x5000UL, 0UL, 1UL), (pci.Config(shm + 8, 4), pci.Config(shm + 12, 4), pci.Config(shm + 16, 4), pci.Config(shm + 20, 4)));
        int access = pci.Structure(5).At;
        Assert.Equal(20UL, pci.Config(access + 2, 1));
    }

    [Fact]
    public void A_device_without_configuration_has_no_structure_for_it()
    {
        using var pci = new PciMachine(new FakeDevice(configurationLength: 0));
        Assert.DoesNotContain(pci.Capabilities(), c => c.Id == 9 && pci.Config(c.At + 3, 1) == 4);
    }

    [Fact]
    public void More_shared_memory_than_capabilities_can_tell_is_refused()
    {
        FakeRegion[] regions = [.. Enumerable.Range(0, 4).Select(i => new FakeRegion((byte)i, 0x1000))];
        Assert.Throws<VmmException>(() => new PciMachine(new FakeDevice(sharedMemory: regions)));
        using var most = new PciMachine(new FakeDevice(sharedMemory: regions[..3]));
        Assert.Equal(9, most.Capabilities().Count);
    }

    [Fact]
    public void Registers_are_where_the_specification_has_them()
    {
        _pci.Enable();
        (ulong common, uint length, _) = _pci.Structure(1);
        Assert.Equal(0x40u, length);
        Assert.Equal((uint)_pci.Device.Offered, _pci.Read(common + 4, 4));
        _pci.Write(common, 1, 4);
        Assert.Equal(_pci.Device.Offered >> 32, _pci.Read(common + 4, 4));
        Assert.Equal(3UL, _pci.Read(common + 0x12, 2));
        Assert.Equal(0xFFFFUL, _pci.Read(common + 0x10, 2));
        Assert.Equal([256UL, 64UL, 16UL, 0UL], Enumerable.Range(0, 4).Select(q =>
        {
            _pci.Write(common + 0x16, (ulong)q, 2);
            Assert.Equal(q < 3 ? (ulong)q : 0, _pci.Read(common + 0x1E, 2));
            Assert.Equal(0xFFFFUL, _pci.Read(common + 0x1A, 2));
            return _pci.Read(common + 0x18, 2);
        }));
        _pci.Start();
        Assert.Equal([0, 1, 2], _pci.Device.Running.Keys.Order());
        _pci.Write(common + 0x16, 2, 2);
        VirtQueueSetup setup = _pci.Device.Running[2];
        Assert.Equal((0x1_0000_1002UL, 0x2_0000_2002UL, 0x3002UL), (setup.DescriptorArea, setup.DriverArea, setup.DeviceArea));
        Assert.Equal((0x1_0000_1002UL, 0x2_0000_2002UL, 0x3002UL), (_pci.Read(common + 0x20, 8), _pci.Read(common + 0x28, 8), _pci.Read(common + 0x30, 8)));
        Assert.Equal((3UL, 1UL, 0UL), (_pci.Read(common + 0x1A, 2), _pci.Read(common + 0x1C, 2), _pci.Read(common + 0x3A, 2)));
        _pci.Write(common + 0x1C, 0, 2);
        Assert.Equal(1UL, _pci.Read(common + 0x1C, 2));
        _pci.Device.Activation!.Host.SignalConfigurationChange();
        Assert.Equal(1UL, _pci.Read(common + 0x15, 1));
        _pci.Write(common + 0x14, 0, 1);
        Assert.Empty(_pci.Device.Running);
        Assert.Equal(0xFFFFUL, _pci.Read(common + 0x10, 2));
        ulong device = _pci.Structure(4).Address;
        Assert.Equal(0x1312UL, _pci.Read(device + 2, 2));
        _pci.Write(device + 2, 0xAB, 1);
        Assert.Equal(0xAB, _pci.Device.Configuration[2]);
        Assert.Equal(0xFFUL, _pci.Read(device + 12, 1));
    }

    [Fact]
    public void A_queue_is_reset_and_enabled_again()
    {
        _pci.Enable().Start(VirtioFeatures.Version1 | VirtioFeatures.RingReset);
        ulong common = _pci.Structure(1).Address;
        _pci.Write(common + 0x16, 1, 2);
        _pci.Write(common + 0x3A, 1, 2);
        Assert.Equal((0UL, 0UL, 0xFFFFUL), (_pci.Read(common + 0x3A, 2), _pci.Read(common + 0x1C, 2), _pci.Read(common + 0x1A, 2)));
        Assert.Equal([0, 2], _pci.Device.Running.Keys.Order());
        _pci.Write(common + 0x18, 32, 2);
        _pci.Write(common + 0x1C, 1, 2);
        Assert.Equal((32, VirtQueueState.Initial), (_pci.Device.Running[1].Size, _pci.Device.Running[1].State));
    }

    [Fact]
    public void Doorbells_follow_the_bar()
    {
        Assert.Empty(_pci.Doorbells.All);
        _pci.Enable().Start();
        ulong notify = _pci.Structure(2).Address;
        Assert.Equal(new ulong[] { 0, 4, 8 }.Select(o => (notify + o, 0, (ulong?)null)), _pci.Doorbells.All);
        Assert.True(_pci.Doorbells.Ring(notify + 4, 2, 1));
        Assert.True(_pci.Device.Running[1].Doorbell.TryConsume());
        // What KVM does not take comes here.
        _pci.Write(notify + 8, 2, 2);
        Assert.True(_pci.Device.Running[2].Doorbell.TryConsume());
        _pci.Write(notify + 12, 3, 2);

        _pci.SetBar(0, 0xD100_0000);
        Assert.Equal(new ulong[] { 0, 4, 8 }.Select(o => (0xD100_3000 + o, 0, (ulong?)null)), _pci.Doorbells.All);
        Assert.Equal(15UL, _pci.Read(0xD100_0014, 1));
        Assert.Equal(0xFFUL, _pci.Read(PciMachine.Registers + 0x14, 1));
        _pci.SetConfig(0x04, 4, 2);
        Assert.Empty(_pci.Doorbells.All);
        Assert.Empty(_pci.Mmio.Ranges);
        Assert.Equal(3, _pci.Device.Running.Count);
        int changes = _pci.Doorbells.Changes;
        _pci.SetConfig(0x04, 0, 2);
        Assert.Equal(changes, _pci.Doorbells.Changes);
        _pci.Enable();
        _pci.Dispose();
        Assert.Empty(_pci.Doorbells.All);
        Assert.Empty(_pci.Mmio.Ranges);
        Assert.True(_pci.Device.IsDisposed && _pci.Router.Messages.TrueForAll(m => m.IsDisposed));
    }

    [Theory]
    [InlineData(0x0000_0000UL, "the host bridge passes nothing on there")]
    [InlineData(0xFEE0_0000UL, "the host bridge passes nothing on there")]
    [InlineData(0xFFFF_FFFF_FFFF_8000UL, "the host bridge passes nothing on there")]
    [InlineData(0x20_0010_0000UL, "fake0 is there")]
    public void A_bar_over_something_else_does_not_answer(ulong address, string problem)
    {
        using var other = new PciMachine(neighbour: _pci);
        other.Enable();
        _pci.Enable();
        Assert.Equal(2, _pci.Mmio.Ranges.Count);
        _pci.SetBar(0, address);
        Assert.Empty(_pci.Doorbells.All);
        Assert.Single(_pci.Mmio.Ranges);
        Assert.EndsWith(problem, Assert.Single(_pci.Log), StringComparison.Ordinal);
        Assert.Equal(3UL, other.Read(other.Structure(1).Address + 0x12, 2));
        _pci.SetBar(0, PciMachine.Registers);
        Assert.Equal(3UL, _pci.Read(PciMachine.Registers + 0x12, 2));
        Assert.Single(_pci.Log);
    }

    [Fact]
    public void Shared_memory_follows_its_bar()
    {
        var (first, second) = (new FakeRegion(1, 0x5000), new FakeRegion(2, 0x40_0000));
        using var pci = new PciMachine(new FakeDevice(sharedMemory: [first, second]));
        Assert.Null(first.Address);
        pci.Enable();
        Assert.Equal((PciMachine.SharedMemory, PciMachine.SharedMemory + 0x20_0000), (first.Address!.Value, second.Address!.Value));
        Assert.Equal(0xFFFFUL, pci.Read(PciMachine.SharedMemory, 2));
        Assert.Equal((1L, 0L), (first.Counters.HoleReads, second.Counters.HoleReads));
        pci.SetBar(2, 0x22_0000_0000);
        Assert.Equal(0x22_0020_0000UL, second.Address);
        pci.SetBar(2, 0x8000_0000);
        Assert.Null(second.Address);
        pci.SetBar(2, PciMachine.SharedMemory);
        pci.SetConfig(0x04, 4, 2);
        Assert.Null(first.Address);
    }

    [Fact]
    public void Registers_are_reached_through_configuration_space()
    {
        int at = _pci.Structure(5).At;
        // Without memory space too.
        Access(0x12, 2);
        Assert.Equal(3UL, _pci.Config(at + 16, 2));
        Access(0x14, 1);
        _pci.SetConfig(at + 16, 3, 1);
        Assert.Equal(3UL, _pci.Config(at + 16, 1));
        Access(0x0, 4);
        _pci.SetConfig(at + 16, 1, 4);
        Access(0x4, 4);
        Assert.Equal(_pci.Device.Offered >> 32, _pci.Config(at + 16, 4));
        Access(0x2000, 4);
        Assert.Equal(0x13121110UL, _pci.Config(at + 16, 4));
        // Not aligned, no such width, past the end, another BAR: nothing happens.
        foreach ((uint offset, uint length, uint bar) in new (uint, uint, uint)[] { (1, 2, 0), (0, 8, 0), (0, 3, 0), (0xFFFF_FFFC, 4, 0), (0x14, 1, 2), (0x14, 0, 0) })
        {
            Access(offset, length, bar);
            _pci.SetConfig(at + 16, 0, 4);
            Assert.Equal(0UL, _pci.Config(at + 16, 4));
        }
        Access(0x14, 1);
        Assert.Equal(3UL, _pci.Config(at + 16, 1));

        void Access(uint offset, uint length, uint bar = 0)
        {
            _pci.SetConfig(at + 4, bar, 1);
            _pci.SetConfig(at + 8, offset, 4);
            _pci.SetConfig(at + 12, length, 4);
        }
    }

    [Fact]
    public void Without_msix_there_is_a_line()
    {
        _pci.Enable().Start();
        IVirtioHost host = _pci.Device.Activation!.Host;
        ulong isr = _pci.Structure(3).Address;
        host.SignalQueue(1);
        Assert.True(_pci.Line.High);
        Assert.Equal(8UL, _pci.Config(0x06, 2) & 8);
        host.SignalConfigurationChange();
        Assert.Equal(3UL, _pci.Read(isr, 1));
        Assert.False(_pci.Line.High);
        Assert.Equal((0UL, 0UL), (_pci.Read(isr, 1), _pci.Config(0x06, 2) & 8));

        _pci.SetConfig(0x04, 0x406, 2);
        host.SignalQueue(0);
        Assert.Equal((false, 8UL), (_pci.Line.High, _pci.Config(0x06, 2) & 8));
        _pci.SetConfig(0x04, 6, 2);
        Assert.True(_pci.Line.High);
        _pci.SetConfig(_pci.Msix + 2, 0x8000, 2);
        Assert.Equal((false, 0UL), (_pci.Line.High, _pci.Config(0x06, 2) & 8));
        _pci.SetConfig(_pci.Msix + 2, 0, 2);
        host.SignalQueue(0);
        Assert.True(_pci.Line.High);
        _pci.Write(_pci.Structure(1).Address + 0x14, 0, 1);
        Assert.False(_pci.Line.High);
    }

    [Fact]
    public void With_msix_each_queue_has_its_vector()
    {
        _pci.Enable();
        _pci.SetConfig(_pci.Msix + 2, 0xC000, 2);
        for (int vector = 0; vector < 4; vector++)
            _pci.SetVector(vector, Apic, 0x40 + (uint)vector, masked: false);
        Assert.All(_pci.Router.Messages, m => Assert.Null(m.Routed));
        _pci.SetConfig(_pci.Msix + 2, 0x8000, 2);
        Assert.Equal([0x40u, 0x41u, 0x42u, 0x43u], _pci.Router.Messages.Select(m => m.Routed!.Value.Data));
        Assert.All(_pci.Router.Messages, m => Assert.Equal(1, m.Routes));
        _pci.Start();
        IVirtioHost host = _pci.Device.Activation!.Host;
        host.SignalQueue(2);
        host.SignalConfigurationChange();
        Assert.Equal([1, 0, 0, 1], _pci.Router.Messages.Select(m => m.Raised));
        Assert.Equal((false, 0UL), (_pci.Line.High, _pci.Read(_pci.Structure(3).Address, 1)));
        ulong common = _pci.Structure(1).Address;
        _pci.Write(common + 0x16, 2, 2);
        _pci.Write(common + 0x1A, 4, 2);
        Assert.Equal(0xFFFFUL, _pci.Read(common + 0x1A, 2));
        host.SignalQueue(2);
        Assert.Equal([1, 0, 0, 1], _pci.Router.Messages.Select(m => m.Raised));
    }

    [Fact]
    public void A_bus_reset_puts_everything_back()
    {
        using var pci = new PciMachine(new FakeDevice());
        pci.Enable();
        pci.SetConfig(pci.Msix + 2, 0x8000, 2);
        pci.SetVector(1, Apic, 0x41, masked: false);
        pci.Start();
        pci.SetBar(0, 0xD100_0000);
        pci.PciBus.Reset();
        Assert.Empty(pci.Device.Running);
        Assert.Empty(pci.Mmio.Ranges);
        Assert.Equal((PciMachine.Registers, 0UL, 0UL), (pci.Bar(0), pci.Config(0x04, 2), pci.Config(pci.Msix + 2, 2) & 0xC000));
        pci.Enable();
        Assert.Equal((0UL, 1UL), (pci.Read(pci.MsixTable + 16, 4), pci.Read(pci.MsixTable + 28, 4)));
        Assert.Null(pci.Router.Messages[1].Routed);
    }

    [Fact]
    public void A_saved_device_goes_on_elsewhere()
    {
        _pci.Enable();
        _pci.SetConfig(_pci.Msix + 2, 0x8000, 2);
        _pci.SetVector(1, Apic, 0x41, masked: false);
        _pci.SetVector(2, Apic, 0x42, masked: true);
        _pci.Start();
        _pci.SetBar(0, 0xD200_0000);
        _pci.Device.Activation!.Host.SignalQueue(1);
        _pci.Device.Ends = setup => new VirtQueueState((ushort)(setup.Index + 5), 3, true, false);
        _pci.Pci.Pause();
        VirtioTransportState state = _pci.Pci.Save();

        using var other = new PciMachine();
        other.Pci.Restore(state);
        Assert.Equal(0xD200_0000UL, other.Bar(0));
        Assert.Equal(15UL, other.Read(0xD200_0014, 1));
        other.Pci.Resume();
        Assert.Equal([5, 6, 7], other.Device.Running.Values.OrderBy(s => s.Index).Select(s => (int)s.State.NextAvailable));
        Assert.Equal((Apic, 0x41u), other.Router.Messages[1].Routed);
        Assert.Equal(4UL, other.Read(other.MsixPending, 8));
        other.Write(other.MsixTable + 2 * 16 + 12, 0, 4);
        Assert.Equal((0UL, 1), (other.Read(other.MsixPending, 8), other.Router.Messages[2].Raised));
        other.Pci.Pause();
        Assert.Equal(state.Queues, other.Pci.Save().Queues);
        Assert.Throws<VmmException>(() => other.Pci.Restore(state with { Pci = null }));
        Assert.Throws<VmmException>(() => other.Pci.Restore(state with { Pci = state.Pci! with { QueueVectors = [] } }));
    }

    [Fact]
    public void What_several_pause_goes_on_when_the_last_one_lets_it()
    {
        _pci.Enable();
        _pci.Start();
        _pci.Pci.BeginPause();
        _pci.Pci.Pause();
        _pci.Pci.Pause();
        _pci.Pci.Resume();
        Assert.Empty(_pci.Device.Running);
        _pci.Pci.Resume();
        Assert.Equal(3, _pci.Device.Running.Count);
        // One too many lets nothing go on that somebody else stops later.
        _pci.Pci.Resume();
        _pci.Pci.Pause();
        Assert.Empty(_pci.Device.Running);
    }

    [Fact]
    public void A_signal_does_not_wait_for_a_queue_that_is_stopped()
    {
        foreach (ulong control in new ulong[] { 0, 0x8000 })
        {
            _pci.Enable();
            _pci.SetConfig(_pci.Msix + 2, control, 2);
            _pci.Start();
            IVirtioHost host = _pci.Device.Activation!.Host;
            _pci.Device.Stopping = queue => OtherThread.Run(() =>
            {
                host.SignalQueue(queue);
                host.SignalConfigurationChange();
                host.NeedsReset("too late");
            });
            _pci.Write(_pci.Structure(1).Address + 0x14, 0, 1);
            Assert.Equal((0UL, false), (_pci.Read(_pci.Structure(1).Address + 0x14, 1), _pci.Line.High));
        }
    }

    [Fact]
    public void No_access_throws()
    {
        using var pci = new PciMachine(new FakeDevice(sharedMemory: [new FakeRegion(1, 0x5000)]));
        pci.Enable();
        var access = from kind in Gen.Choose(0, 9)
                     from offset in Gen.OneOf(Gen.Choose(0, 0x50), Gen.Choose(0, 0xFF), Gen.Choose(0, 0x7FFF), Gen.Choose(0, 7).Select(p => p << 12))
                     from width in Gen.OneOf(Gen.Elements(1, 2, 4, 8), Gen.Choose(1, 8))
                     from value in Gen.OneOf(Gen.Choose(0, 16), Gen.Choose(int.MinValue, int.MaxValue), Gen.Elements(unchecked((int)0xD000_0000), -1, 6, 0xC000))
                     select (kind, offset, width, value);
        Prop.ForAll(Gen.ArrayOf(access, 300).ToArbitrary(), accesses =>
        {
            foreach ((int kind, int offset, int width, int value) in accesses)
            {
                if (kind == 0)
                    pci.SetConfig(offset % 0x100, (ulong)value, width);
                else if (kind == 1)
                    _ = pci.Config(offset & 0xFFF, width);
                else if (kind < 6)
                    pci.Write(pci.Bar(0) + (ulong)offset, (ulong)value, width);
                else
                    _ = pci.Read(pci.Bar(0) + (ulong)offset, width);
                if (kind == 9)
                    pci.Enable();
            }
        }).QuickCheckThrowOnFailure();
        Assert.DoesNotContain(pci.Log, line => line.Contains("this program", StringComparison.Ordinal));
    }
}
