using FsCheck;
using FsCheck.Fluent;
using Vmm.Core.Bus;
using Vmm.Core.Memory;
using Vmm.Devices.Pci;
using static Vmm.Devices.Pci.PciRegisters;

namespace Vmm.Devices.Tests.Pci;

/// <summary>A device on a bus follows its base address register.</summary>
public sealed class PciBarWindowTests
{
    private const uint Size4K = 0x1000;

    private readonly AddressBus _mmio = new("MMIO");

    [Fact]
    public void It_answers_where_the_register_is_while_memory_is_decoded()
    {
        var function = new Function(_mmio, 1, PciBarKind.Memory32);
        function.SetBar(0xD000_2000);
        Assert.True(function.Window.Range.IsEmpty);
        Assert.Equal(0xFF, Peek(0xD000_2000));
        function.Decode(true);
        Assert.Equal(new AddressRange(0xD000_2000, Size4K), function.Window.Range);
        Assert.Equal(1, Peek(0xD000_2000));
        Assert.Equal(1, Peek(0xD000_2FFF));
        Assert.Equal(0xFF, Peek(0xD000_3000));
        function.SetBar(0xD000_4000);
        Assert.Equal(0xFF, Peek(0xD000_2000));
        Assert.Equal(1, Peek(0xD000_4000));
        function.Decode(false);
        Assert.Equal(0xFF, Peek(0xD000_4000));
        Assert.Empty(_mmio.Ranges);
    }

    [Theory]
    [InlineData(PciBarKind.Memory32)]
    [InlineData(PciBarKind.Memory64)]
    public void Asking_for_the_size_while_decoding_puts_it_nowhere(PciBarKind kind)
    {
        var function = new Function(_mmio, 1, kind);
        function.Decode(true);
        Assert.Empty(_mmio.Ranges); // At 0: not set yet.
        function.SetBar(ulong.MaxValue);
        Assert.Empty(_mmio.Ranges);
        function.SetBar(0xD000_0000);
        Assert.Equal(1, Peek(0xD000_0000));
    }

    [Fact]
    public void Over_another_device_it_does_not_answer_until_that_has_gone()
    {
        var first = new Function(_mmio, 1, PciBarKind.Memory32);
        var second = new Function(_mmio, 2, PciBarKind.Memory32);
        first.Decode(true);
        second.Decode(true);
        first.SetBar(0xD000_0000);
        second.SetBar(0xD000_1000);
        second.SetBar(0xD000_0000);
        Assert.True(second.Window.IsBlocked);
        Assert.Equal(1, Peek(0xD000_0000));
        Assert.Equal(0xFF, Peek(0xD000_1000));
        first.SetBar(0xD000_5000);
        second.Decode(false);
        second.Decode(true);
        Assert.False(second.Window.IsBlocked);
        Assert.Equal(2, Peek(0xD000_0000));
        Assert.Equal(1, Peek(0xD000_5000));
    }

    [Fact]
    public void Whatever_guests_write_the_bus_and_the_windows_agree()
    {
        var writes = from function in Gen.Choose(0, 2)
                     from decode in Gen.Choose(0, 4)
                     from page in Gen.OneOf(Gen.Choose(0, 4), Gen.Choose(0xFFFFD, 0xFFFFF))
                     from high in Gen.Elements(0u, 1u, uint.MaxValue)
                     select (function, decode, page, high);
        Prop.ForAll(writes.ArrayOf().ToArbitrary(), steps =>
        {
            var bus = new AddressBus("MMIO");
            Function[] functions = [new(bus, 0, PciBarKind.Memory32), new(bus, 1, PciBarKind.Memory64), new(bus, 2, PciBarKind.Memory64)];
            foreach ((int index, int decode, int page, uint high) in steps)
            {
                Function function = functions[index];
                if (decode < 2)
                    function.Decode(decode == 1);
                else
                    function.SetBar((ulong)high << 32 | (uint)page << 12);
                foreach (Function each in functions)
                {
                    PciBar bar = each.Space.GetBar(0);
                    AddressRange range = each.Window.Range;
                    if (!range.IsEmpty && (!bar.Enabled || range != new AddressRange(bar.Address, bar.Size)))
                        return false;
                    if (!range.IsEmpty && (!bus.TryFind(range.Start, 4, out IBusDevice? found, out ulong offset) || found != each || offset != 0))
                        return false;
                }
                if (bus.Ranges.Count != functions.Count(f => !f.Window.Range.IsEmpty))
                    return false;
            }
            return true;
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(1000));
    }

    private int Peek(ulong address)
    {
        Span<byte> data = stackalloc byte[1];
        _mmio.Read(address, data);
        return data[0];
    }

    private sealed class Function : IBusDevice
    {
        private readonly byte _mark;
        private readonly bool _wide;

        public Function(AddressBus bus, byte mark, PciBarKind kind)
        {
            _mark = mark;
            _wide = kind == PciBarKind.Memory64;
            Space = new PciConfigurationSpace(new PciIdentity(1, mark, 0xFF0000));
            Space.AddBar(0, kind, Size4K);
            Window = new PciBarWindow(bus, this, "function " + mark);
        }

        public PciConfigurationSpace Space { get; }

        public PciBarWindow Window { get; }

        public void SetBar(ulong value)
        {
            Write(Bar0, BitConverter.GetBytes((uint)value));
            if (_wide)
                Write(Bar0 + 4, BitConverter.GetBytes((uint)(value >> 32)));
        }

        public void Decode(bool on) => Write(Command, [on ? (byte)CommandMemory : (byte)0, 0]);

        public void Read(ulong offset, Span<byte> data) => data.Fill(_mark);

        void IBusDevice.Write(ulong offset, ReadOnlySpan<byte> data)
        {
        }

        private void Write(int offset, byte[] data)
        {
            if (Space.Write(offset, data) == PciConfigurationChanges.None)
                return;
            AddressRange before = Window.Range;
            Assert.Equal(Window.Update(Space.GetBar(0)), before != Window.Range);
        }
    }
}
