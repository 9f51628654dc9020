using System.Buffers.Binary;
using Vmm.Core.Bus;
using Vmm.Core.Events;
using Vmm.Core.Memory;
using Vmm.Devices.Pci;
using Vmm.Virtio.Transport.Pci;

namespace Vmm.Virtio.Tests.Transport;

/// <summary>A virtio-pci function at 00:03.0 behind ECAM, and what a driver finds out about it by itself.</summary>
internal sealed class PciMachine : IDisposable
{
    public const ulong Registers = 0x20_0000_0000;
    public const ulong SharedMemory = 0x21_0000_0000;
    public static readonly AddressRange Window32 = new(0xD000_0000, 0x1000_0000);
    public static readonly AddressRange Window64 = new(0x20_0000_0000, 0x20_0000_0000);

    private readonly PciEcam _ecam;
    private readonly int _device;

    /// <param name="device">The device.</param>
    /// <param name="neighbour">A machine to whose bus it is added.</param>
    /// <param name="router">In place of <see cref="Router"/>.</param>
    /// <param name="relay">Gives the thread that relays interrupts.</param>
    public PciMachine(FakeDevice? device = null, PciMachine? neighbour = null, IInterruptRouter? router = null, Func<EventLoop>? relay = null)
    {
        Device = device ?? new FakeDevice();
        Mmio = neighbour?.Mmio ?? new AddressBus("MMIO");
        PciBus = neighbour?.PciBus ?? new PciBus();
        _ecam = new PciEcam(PciBus);
        _device = neighbour == null ? 3 : 4;
        Pci = new VirtioPciTransport(Device, BusAccess.NoMemory, new PciMemory(Mmio, Window32, Window64), router ?? Router, Line, Doorbells, Log.Add, relay);
        Pci.AssignBars(neighbour == null ? Registers : Registers + 0x10_0000, SharedMemory);
        PciBus.Add(_device, 0, Pci, "virtio");
    }

    public FakeDevice Device { get; }

    public AddressBus Mmio { get; }

    public PciBus PciBus { get; }

    public VirtioPciTransport Pci { get; }

    public FakeRouter Router { get; } = new();

    public FakeLine Line { get; } = new();

    public FakeDoorbells Doorbells { get; } = new();

    public List<string> Log { get; } = [];

    public ulong Config(int offset, int width) => _ecam.Read((ulong)((_device << 15) + offset), width);

    public void SetConfig(int offset, ulong value, int width) => _ecam.Write((ulong)((_device << 15) + offset), value, width);

    public ulong Read(ulong address, int width)
    {
        Span<byte> data = stackalloc byte[8];
        data.Clear();
        Mmio.Read(address, data[..width]);
        return BinaryPrimitives.ReadUInt64LittleEndian(data);
    }

    public void Write(ulong address, ulong value, int width)
    {
        Span<byte> data = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(data, value);
        Mmio.Write(address, data[..width]);
    }

    /// <summary>Memory space and bus mastering on.</summary>
    public PciMachine Enable()
    {
        SetConfig(0x04, Config(0x04, 2) | 6, 2);
        return this;
    }

    /// <summary>The capabilities, as a walk over the list finds them.</summary>
    public List<(int At, byte Id)> Capabilities()
    {
        Assert.NotEqual(0UL, Config(0x06, 2) & 0x10);
        var list = new List<(int, byte)>();
        int at = (int)Config(0x34, 1);
        while (at != 0)
        {
            Assert.True(at >= 0x40 && at % 4 == 0 && list.Count < 48);
            list.Add((at, (byte)Config(at, 1)));
            at = (int)Config(at + 1, 1);
        }
        return list;
    }

    /// <summary>Address and length of a virtio structure in memory.</summary>
    public (ulong Address, uint Length, int At) Structure(byte type)
    {
        int at = Capabilities().First(c => c.Id == 9 && Config(c.At + 3, 1) == type).At;
        return (Bar((int)Config(at + 4, 1)) + Config(at + 8, 4), (uint)Config(at + 12, 4), at);
    }

    public int Msix => Capabilities().Single(c => c.Id == 0x11).At;

    public ulong MsixTable => Bar((int)Config(Msix + 4, 4) & 7) + (Config(Msix + 4, 4) & ~7UL);

    public ulong MsixPending => Bar((int)Config(Msix + 8, 4) & 7) + (Config(Msix + 8, 4) & ~7UL);

    public ulong Bar(int index) => (Config(0x10 + 4 * index, 4) & ~0xFUL) | (Config(0x14 + 4 * index, 4) << 32);

    public void SetBar(int index, ulong address)
    {
        SetConfig(0x10 + 4 * index, (uint)address, 4);
        SetConfig(0x14 + 4 * index, address >> 32, 4);
    }

    public void SetVector(int vector, ulong address, uint data, bool masked)
    {
        ulong entry = MsixTable + (ulong)(16 * vector);
        Write(entry + 12, 1, 4);
        Write(entry, address, 4);
        Write(entry + 4, address >> 32, 4);
        Write(entry + 8, data, 4);
        Write(entry + 12, masked ? 1u : 0, 4);
    }

    /// <summary>As a driver does it: features, all queues, DRIVER_OK.</summary>
    public void Start(ulong features = VirtioFeatures.Version1)
    {
        ulong common = Structure(1).Address;
        Write(common + 0x14, 0, 1);
        Write(common + 0x14, 3, 1);
        Write(common + 0x08, 0, 4);
        Write(common + 0x0C, (uint)features, 4);
        Write(common + 0x08, 1, 4);
        Write(common + 0x0C, features >> 32, 4);
        Write(common + 0x14, 11, 1);
        for (uint queue = 0; queue < Device.QueueSizes.Count; queue++)
        {
            Write(common + 0x16, queue, 2);
            Write(common + 0x20, 0x1000 + queue, 4);
            Write(common + 0x24, 1, 4);
            Write(common + 0x28, 0x2_0000_2000UL + queue, 8);
            Write(common + 0x30, 0x3000 + queue, 4);
            Write(common + 0x1A, queue + 1, 2);
            Write(common + 0x1C, 1, 2);
        }
        Write(common + 0x10, 0, 2);
        Write(common + 0x14, 15, 1);
        Assert.Equal(15UL, Read(common + 0x14, 1));
    }

    public void Dispose() => Pci.Dispose();
}
