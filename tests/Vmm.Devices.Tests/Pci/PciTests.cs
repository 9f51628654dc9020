using FsCheck;
using FsCheck.Fluent;
using Vmm.Core;
using Vmm.Core.Bus;
using Vmm.Devices.Pci;
using Vmm.Devices.Power;
using static Vmm.Devices.Pci.PciRegisters;

namespace Vmm.Devices.Tests.Pci;

public sealed class PciTests
{
    private readonly FakeEvents _events = new();
    private readonly PciBus _bus = new();
    private readonly PciConfigPorts _ports;
    private readonly PciEcam _ecam;

    public PciTests()
    {
        _bus.Add(0, 0, new PciHostBridge(), "host bridge");
        _ports = new PciConfigPorts(_bus, new ResetRegister(_events));
        _ecam = new PciEcam(_bus);
    }

    [Fact]
    public void Linux_finds_mechanism_1_and_the_host_bridge()
    {
        // pci_check_type1() and pci_sanity_check().
        _ports.WriteByte(3, 0x01);
        _ports.WriteUInt32(0, 0x8000_0000);
        Assert.Equal(0x8000_0000, _ports.ReadUInt32(0));
        Assert.Equal(0x0D57_8086u, _ports.ReadUInt32(4));
        _ports.WriteUInt32(0, 0x8000_0008);
        Assert.Equal(0x0600, _ports.ReadUInt16(6));
        Assert.Equal(0x0D57_8086u, _ecam.ReadUInt32(0));
    }

    [Fact]
    public void Absent_functions_and_buses_read_as_ones()
    {
        for (uint bus = 0; bus < 3; bus++)
        {
            for (uint function = bus == 0 ? 1u : 0; function < 256; function++)
            {
                _ports.WriteUInt32(0, 0x8000_0000 | bus << 16 | function << 8);
                _ports.WriteUInt32(4, 0);
                Assert.Equal(uint.MaxValue, _ports.ReadUInt32(4));
                Assert.Equal(uint.MaxValue, _ecam.ReadUInt32((ulong)bus << 20 | (ulong)function << 12));
            }
        }
        Assert.Equal(uint.MaxValue, _ecam.ReadUInt32(0xFFE)); // Across the end of a function.
    }

    [Fact]
    public void Without_the_enable_bit_the_data_port_is_not_there()
    {
        _ports.WriteUInt32(0, 0);
        Assert.Equal(uint.MaxValue, _ports.ReadUInt32(4));
    }

    [Fact]
    public void The_reset_register_lives_between_the_address_ports()
    {
        _ports.WriteUInt32(0, 0x8000_FF06);
        Assert.Empty(_events.Seen);
        Assert.Equal(0x8000_FF04, _ports.ReadUInt32(0));
        _ports.WriteUInt16(1, 0x0606);
        Assert.Empty(_events.Seen);
        _ports.WriteByte(1, 0x02);
        Assert.Equal(0x02, _ports.ReadByte(1));
        _ports.WriteByte(1, 0x06);
        Assert.Equal([GuestEvent.Reset], _events.Seen);
        Assert.Equal(0x8000_FF04, _ports.ReadUInt32(0));
    }

    [Fact]
    public void Function_0_tells_of_more_functions()
    {
        Assert.Equal(0, _ecam.ReadByte(HeaderType));
        _bus.Add(0, 3, new PciHostBridge(), "another");
        Assert.Equal(HeaderMultiFunction, _ecam.ReadByte(HeaderType));
        Assert.Equal(0x0080_0000u, _ecam.ReadUInt32(CacheLineSize));
        Assert.Equal(0, _ecam.ReadByte(3 << 12 | HeaderType));
        Assert.True(_bus.Remove(0, 3));
        Assert.Equal(0, _ecam.ReadByte(HeaderType));
    }

    [Fact]
    public void Places_are_given_once()
    {
        Assert.Equal("Cannot put x on the PCI bus at 00.0: host bridge is there already.",
            Assert.Throws<VmmException>(() => _bus.Add(0, 0, new PciHostBridge(), "x")).Message);
        Assert.Throws<VmmException>(() => _bus.Add(32, 0, new PciHostBridge(), "x"));
        for (int i = 1; i < 32; i++)
            Assert.Equal(i, _bus.AddAtFreeDevice(new PciHostBridge(), "x"));
        Assert.Throws<VmmException>(() => _bus.AddAtFreeDevice(new PciHostBridge(), "x"));
        Assert.True(_bus.Remove(7, 0));
        Assert.False(_bus.Remove(7, 0));
        Assert.Equal(7, _bus.AddAtFreeDevice(new PciHostBridge(), "x"));
        Assert.Equal(32, _bus.Functions.Count);
    }

    [Fact]
    public void A_scan_of_absent_functions_allocates_nothing()
    {
        Span<byte> data = stackalloc byte[4];
        _ecam.Read(1 << 12, data);
        long before = ThreadAllocations.Start();
        for (ulong function = 1; function < 256; function++)
            _ecam.Read(function << 12, data);
        Assert.Equal(0, ThreadAllocations.Since(before));
    }

    [Fact]
    public void Bars_are_sized_and_placed()
    {
        var sizes = from kind in Gen.Elements(PciBarKind.Io, PciBarKind.Memory32, PciBarKind.Memory64)
                    from bits in Gen.Choose(kind == PciBarKind.Io ? 2 : 4, kind switch { PciBarKind.Io => 8, PciBarKind.Memory32 => 31, _ => 48 })
                    from index in Gen.Choose(0, 4)
                    from address in Gen.Choose(int.MinValue, int.MaxValue)
                    select (kind, bits, index, address);
        Prop.ForAll(sizes.ToArbitrary(), test =>
        {
            (PciBarKind kind, int bits, int index, int random) = test;
            ulong size = 1UL << bits;
            var space = new PciConfigurationSpace(new PciIdentity(0x1AF4, 0x1042, 0x018000));
            space.AddBar(index, kind, size);
            int at = Bar0 + 4 * index;
            bool wide = kind == PciBarKind.Memory64;
            ulong Get() => space.ReadUInt32(at) | (wide ? (ulong)space.ReadUInt32(at + 4) << 32 : 0);
            void Put(ulong value)
            {
                space.Write(at, BitConverter.GetBytes((uint)value));
                if (wide)
                    space.Write(at + 4, BitConverter.GetBytes((uint)(value >> 32)));
            }
            ulong typeMask = kind == PciBarKind.Io ? 3UL : 15UL;
            ulong width = wide ? ulong.MaxValue : uint.MaxValue;
            ulong type = Get();
            Put(ulong.MaxValue);
            bool right = (~(Get() & ~typeMask) & width) + 1 == size && (Get() & typeMask) == type;
            ulong address = (ulong)random * 0x10001UL & ~(size - 1) & width;
            Put(address);
            PciBar bar = space.GetBar(index);
            right &= bar == new PciBar(kind, address, size, false);
            right &= space.Write(Command, [(byte)(kind == PciBarKind.Io ? CommandIo : CommandMemory)]) == PciConfigurationChanges.Command;
            right &= space.GetBar(index).Enabled;
            space.Reset();
            return right && space.GetBar(index) == new PciBar(kind, 0, size, false) && Get() == type;
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(1000));
    }

    [Fact]
    public void Bars_that_cannot_be_are_refused()
    {
        PciConfigurationSpace space = Sample();
        Assert.ThrowsAny<ArgumentException>(() => space.AddBar(0, PciBarKind.Memory32, 4096));
        Assert.ThrowsAny<ArgumentException>(() => space.AddBar(1, PciBarKind.Memory32, 4096)); // The upper half of 0.
        Assert.ThrowsAny<ArgumentException>(() => space.AddBar(5, PciBarKind.Memory64, 4096));
        Assert.ThrowsAny<ArgumentException>(() => space.AddBar(3, PciBarKind.Memory32, 4097));
        Assert.ThrowsAny<ArgumentException>(() => space.AddBar(3, PciBarKind.Io, 512));
        Assert.ThrowsAny<ArgumentException>(() => space.AddBar(3, PciBarKind.None, 16));
    }

    [Fact]
    public void Capabilities_form_a_list_that_ends()
    {
        PciConfigurationSpace space = Sample();
        Assert.NotEqual(0, space.ReadUInt16(Status) & StatusCapabilities);
        List<(int Id, int At)> found = [];
        Span<byte> head = stackalloc byte[2];
        for (int at = space.ReadUInt16(CapabilitiesPointer) & 0xFF; at != 0; at = head[1])
        {
            space.Read(at, head);
            Assert.Equal(0, at % 4);
            found.Add((head[0], at));
        }
        Assert.Equal([(0x11, 0x40), (0x09, 0x4C), (0x09, 0x5C)], found);
        uint first = space.ReadUInt32(FirstExtendedCapability);
        Assert.Equal(0x0001_000Du, first & 0xF_FFFF);
        Assert.Equal(0x0002_0010u, space.ReadUInt32((int)(first >> 20)));
        Assert.Throws<ArgumentException>(() => space.AddCapability(0x09, new byte[200]));
    }

    [Fact]
    public void Only_writable_bits_ever_change()
    {
        PciConfigurationSpace pristine = Sample();
        bool[] writable = new bool[Size * 8];
        Span<byte> one = stackalloc byte[1];
        for (int at = 0; at < Size; at++)
        {
            PciConfigurationSpace ones = Sample(), zeros = Sample();
            ones.Write(at, [0xFF]);
            zeros.Write(at, [0x00]);
            ones.Read(at, one);
            int high = one[0];
            zeros.Read(at, one);
            for (int bit = 0; bit < 8; bit++)
                writable[at * 8 + bit] = ((high ^ one[0]) >> bit & 1) != 0;
        }
        // Vendor, class, header type, capability ids and the table size of MSI-X are not; its enable bit is.
        Assert.False(writable[VendorId * 8]);
        Assert.False(writable[0x42 * 8]);
        Assert.True(writable[0x43 * 8 + 7]);
        Assert.True(writable[InterruptLine * 8]);

        Prop.ForAll<(int At, byte[] Data)[]>(writes =>
        {
            PciConfigurationSpace space = Sample();
            foreach ((int at, byte[] data) in writes)
            {
                if (data is { Length: > 0 and <= 8 })
                    space.Write(at & 0xFFF, data);
            }
            byte[] now = space.Save().Bytes, then = pristine.Save().Bytes;
            for (int i = 0; i < now.Length * 8; i++)
            {
                if (!writable[i] && ((now[i / 8] ^ then[i / 8]) >> (i % 8) & 1) != 0)
                    return false;
            }
            PciConfigurationSpace restored = Sample();
            restored.Restore(space.Save());
            bool same = restored.Save().Bytes.AsSpan().SequenceEqual(now);
            space.Reset();
            return same && space.Save().Bytes.AsSpan().SequenceEqual(then);
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(500));
    }

    [Fact]
    public void A_state_of_another_function_is_refused()
    {
        var other = new PciConfigurationSpace(new PciIdentity(1, 2, 3));
        Assert.Contains("of 0001:0002", Assert.Throws<VmmException>(
            () => new PciHostBridge().Restore(other.Save())).Message);
        Assert.Throws<VmmException>(() => new PciHostBridge().Restore(Sample().Save()));
    }

    [Fact]
    public void Ports_and_bridge_come_back_as_they_were_saved()
    {
        var bridge = new PciHostBridge();
        bridge.WriteConfiguration(InterruptLine, [0x42]);
        bridge.WriteConfiguration(Command, [0x07, 0x01]);
        var restored = new PciHostBridge();
        restored.Restore(bridge.Save());
        byte[] expected = new byte[Size], found = new byte[Size];
        bridge.ReadConfiguration(0, expected);
        restored.ReadConfiguration(0, found);
        Assert.Equal(expected, found);
        Assert.Equal(0x42, found[InterruptLine]);
        restored.Reset();
        restored.ReadConfiguration(0, found);
        Assert.Equal(0, found[InterruptLine]);

        _ports.WriteUInt32(0, 0x8000_0808);
        var ports = new PciConfigPorts(_bus);
        ports.Restore(_ports.Save());
        Assert.Equal(0x8000_0808, ports.ReadUInt32(0));
        ports.Reset();
        Assert.Equal(0u, ports.ReadUInt32(0));
    }

    private static PciConfigurationSpace Sample()
    {
        var space = new PciConfigurationSpace(new PciIdentity(0x1AF4, 0x1042, 0x018000, 1, 0x1AF4, 0x40, 1));
        space.AddBar(0, PciBarKind.Memory64, 16384, prefetchable: true);
        space.AddBar(2, PciBarKind.Io, 64);
        space.AddCapability(0x11, [3, 0, 0, 0x20, 0, 0, 0, 0x30, 0, 0], [0, 0xC0]);
        space.AddCapability(0x09, [14, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        space.AddCapability(0x09, [16, 5, 4, 3], [0, 0, 0xFF, 0xFF]);
        space.AddExtendedCapability(0x000D, 1, [1, 2, 3, 4], [0x0F]);
        space.AddExtendedCapability(0x0010, 2, []);
        return space;
    }
}
