using Vmm.Core;
using Vmm.Core.Bus;
using Vmm.Core.Cpu;
using Vmm.Core.Kvm;
using Vmm.Core.Memory;
using Vmm.Devices.Acpi;
using Vmm.Devices.Pci;
using Vmm.Machine.Configuration;
using Vmm.Tests.Payloads;
using Vmm.Virtio;
using Vmm.Virtio.Queues;
using Vmm.Virtio.SharedMemory;
using Vmm.Virtio.Transport;

namespace Vmm.Machine.Tests;

/// <summary>Places of virtio devices in a machine, as its guest finds them.</summary>
[Collection(nameof(WholeProcessCollection))]
public sealed class VirtioSlotsTests : IVcpuObserver, IDisposable
{
    private readonly MachineParts _parts;
    private readonly PciBus _pci = new();
    private readonly List<string> _said = [];
    private readonly VirtioSlots _slots;

    public VirtioSlotsTests()
    {
        NeedsKvm.Check();
        _parts = MachineParts.Create(new VmConfig { Memory = new MemoryConfig(66 * ByteSize.MiB) }, [], this);
        _pci.Add(0, 0, new PciHostBridge(), "the host bridge");
        _slots = new VirtioSlots(_parts, _pci, new KvmInterruptRouter(_parts.Vm), Assert.Fail);
    }

    public void Dispose()
    {
        _slots?.Dispose();
        _parts?.Dispose();
    }

    [SkippableFact]
    public void Mmio_devices_have_a_page_and_an_edge_each()
    {
        _slots.Add(new Stub("a"), VirtioBus.Mmio);
        _slots.Add(new Stub("b"), VirtioBus.Mmio);
        Assert.Equal(
            [new VirtioMmioAcpi(0, new AddressRange(0xC000_1000, 0x1000), 5), new VirtioMmioAcpi(1, new AddressRange(0xC000_2000, 0x1000), 6)],
            _slots.Acpi);
        Assert.Equal(["virtio_mmio.device=4K@0xc0001000:5", "virtio_mmio.device=4K@0xc0002000:6"], _slots.CommandLineFragments);
        Assert.Equal(0x7472_6976u, Read(0xC000_2000));
        Assert.Equal(_parts.Layout.Pci64, _slots.Window64);
        Assert.Equal(["a", "b"], _slots.Devices.Select(device => device.Id));
    }

    [SkippableFact]
    public void The_interrupts_of_mmio_run_out_and_pci_has_more()
    {
        int count = 0;
        var last = new Stub("last");
        VmmException error = Assert.Throws<VmmException>(() =>
        {
            for (; count < 100; count++)
                _slots.Add(count == 12 ? last : new Stub($"mmio{count}"), VirtioBus.Mmio);
        });
        Assert.Equal(12, count);
        Assert.True(last.IsDisposed);
        Assert.Contains("bus=pci", error.Message, StringComparison.Ordinal);
        Assert.Equal(12, _slots.Acpi.Select(slot => slot.Gsi).Distinct().Count());
        Assert.DoesNotContain(_slots.Acpi, slot => slot.Gsi is < 5 or 8 or 9 or 12 or (>= 16 and <= 19) or > 23);
        for (int i = 0; i < 31; i++)
            _slots.Add(new Stub($"pci{i}"), VirtioBus.Pci);
        var over = new Stub("over");
        error = Assert.Throws<VmmException>(() => _slots.Add(over, VirtioBus.Pci));
        Assert.Contains("bus=mmio", error.Message, StringComparison.Ordinal);
        Assert.True(over.IsDisposed);
    }

    [SkippableFact]
    public void Pci_devices_have_bars_in_the_window_that_answer_once_memory_is_on()
    {
        _slots.Add(new Stub("a"), VirtioBus.Pci);
        _slots.Add(new Stub("b", new Region(0, 0x30_0000)), VirtioBus.Pci);
        Assert.Equal([(0, 0), (1, 0), (2, 0)], _pci.Functions.Select(f => (f.Device, f.Function)));
        AddressRange[] bars = [Bar(1, 0), Bar(2, 0), Bar(2, 2)];
        for (int i = 0; i < bars.Length; i++)
        {
            Assert.True(_slots.Window64.Contains(bars[i].Start, bars[i].Length), bars[i].ToString());
            Assert.Equal(0UL, bars[i].Start % bars[i].Length);
            Assert.DoesNotContain(bars[..i], other => other.Overlaps(bars[i]));
        }
        Assert.Equal(0x40_0000UL, bars[2].Length);
        Assert.Equal(uint.MaxValue, Read(bars[1].Start));
        _pci.Write(0, 2 * 8, 4, [6, 0]);
        Assert.Equal(0x0001_FFFFu, Read(bars[1].Start + 0x10));
        Assert.Equal(bars[2].Start, ((Region)_slots.Devices.Last().SharedMemory[0]).Address);
        Assert.Equal([17u, 18u], new[] { VirtioSlots.PciGsi(1), VirtioSlots.PciGsi(2) });
        PciInterruptRoute[] routes = PciInterruptRoute.Swizzle([1, 2], VirtioSlots.FirstPciGsi);
        Assert.All(routes.Where(route => route.Pin == 0), route => Assert.Equal(VirtioSlots.PciGsi(route.Device), route.Gsi));
    }

    [SkippableFact]
    public void Shared_memory_on_mmio_is_kept_out_of_the_host_bridges_window()
    {
        var (chosen, anywhere, more) = (new Region(0, 0x1000, preferred: 0x7_0000_0000), new Region(1, 0x30_0000), new Region(2, 0x1000));
        _slots.Add(new Stub("a", chosen, anywhere, more), VirtioBus.Mmio);
        AddressRange window = _parts.Layout.Pci64;
        Assert.Equal((0x7_0000_0000UL, window.End - 0x40_0000, window.End - 0x40_1000), (chosen.Address, anywhere.Address, more.Address));
        Assert.Equal(new AddressRange(window.Start, window.Length - 0x40_1000), _slots.Window64);
        var large = new Stub("large", new Region(0, window.Length));
        Assert.Throws<VmmException>(() => _slots.Add(large, VirtioBus.Mmio));
        Assert.True(large.IsDisposed);
        large = new Stub("large", new Region(0, window.Length));
        Assert.Throws<VmmException>(() => _slots.Add(large, VirtioBus.Pci));
        Assert.True(large.IsDisposed);
    }

    private AddressRange Bar(int device, int index)
    {
        int at = 0x10 + 4 * index;
        ulong address = Config(device, at) & ~0xFUL | (ulong)Config(device, at + 4) << 32;
        _pci.Write(0, (uint)device * 8, at, [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
        ulong mask = Config(device, at) & ~0xFUL | (ulong)Config(device, at + 4) << 32;
        _pci.Write(0, (uint)device * 8, at, BitConverter.GetBytes(address));
        return new AddressRange(address, ~mask + 1);
    }

    private uint Config(int device, int offset)
    {
        byte[] data = new byte[4];
        _pci.Read(0, (uint)device * 8, offset, data);
        return BitConverter.ToUInt32(data);
    }

    private uint Read(ulong address)
    {
        byte[] data = new byte[4];
        _parts.Mmio.Read(address, data);
        return BitConverter.ToUInt32(data);
    }

    void IVcpuObserver.Ended(Vcpu vcpu, VcpuEnd end)
    {
    }

    [SkippableFact]
    public void A_region_answers_for_its_holes_wherever_it_is_placed_and_a_device_tells()
    {
        ulong home = _parts.Layout.Pci64.Start - (1UL << 30);
        Region moved = new(0, 0x20_0000), kept = new(1, 0x20_0000, home);
        using var slots = new VirtioSlots(_parts, _pci, new KvmInterruptRouter(_parts.Vm), _said.Add);
        slots.Add(new Stub("windows", moved, kept), VirtioBus.Mmio);
        Assert.Equal(home, kept.Address);
        Assert.Equal(uint.MaxValue, Read(moved.Address!.Value + 0x1234));
        _parts.Mmio.Write(moved.Address.Value, [1, 2, 3, 4]);
        Assert.Equal((1L, 1L, 0L), (moved.Counters.HoleReads, moved.Counters.HoleWrites, kept.Counters.HoleReads));
        Assert.Equal(uint.MaxValue, Read(home));
        _parts.Mmio.Write(home, [1, 2, 3, 4]);
        Assert.Equal((0L, 0L), (kept.Counters.HoleReads, kept.Counters.HoleWrites));
        kept.IsHome = true;
        Assert.Equal(uint.MaxValue, Read(home));
        Assert.Equal(1L, kept.Counters.HoleReads);
        Assert.Equal(3, _said.Count);
        Assert.All(_said, line => Assert.StartsWith("windows: the guest ", line, StringComparison.Ordinal));
        // And what is missing is looked for there.
        Assert.Equal(GuestFaultAnswer.NotHere, _parts.Faults.Resolve());
        Assert.Equal((1, 1), (moved.Asked, kept.Asked));
    }

    private sealed class Region(byte id, ulong length, ulong? preferred = null) : SharedMemoryRegion(id, length)
    {
        public ulong? Address { get; private set; }

        public override ulong? PreferredAddress => preferred;

        public bool IsHome { get; set; }

        public int Asked { get; private set; }

        internal override bool IsAtPreferredAddress => IsHome;

        public override void Place(ulong? guestAddress) => Address = guestAddress;

        public override GuestFaultAnswer Resolve()
        {
            Asked++;
            return GuestFaultAnswer.NotHere;
        }
    }

    private sealed class Stub(string id, params SharedMemoryRegion[] regions) : VirtioDevice(id, VirtioDeviceType.Block)
    {
        public bool IsDisposed { get; private set; }

        public override ulong OfferedFeatures => VirtioFeatures.AllQueues;

        public override IReadOnlyList<ushort> QueueSizes { get; } = [16];

        public override IReadOnlyList<SharedMemoryRegion> SharedMemory => regions;

        public override int ConfigurationLength => 0;

        public override void ReadConfiguration(int offset, Span<byte> data)
        {
        }

        public override void Activate(VirtioActivation activation)
        {
        }

        public override void StartQueue(in VirtQueueSetup setup)
        {
        }

        public override VirtQueueState StopQueue(int index) => default;

        public override void Reset()
        {
        }

        public override VirtioDeviceState Save() => throw new NotSupportedException();

        public override void Restore(VirtioDeviceState state)
        {
        }

        public override void ReportCounters(ICounterSink sink)
        {
        }

        protected override void Dispose(bool disposing)
        {
            IsDisposed = true;
            base.Dispose(disposing);
        }
    }
}
