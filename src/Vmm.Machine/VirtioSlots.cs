using Vmm.Core;
using Vmm.Core.Bus;
using Vmm.Core.Events;
using Vmm.Core.Kvm;
using Vmm.Core.Memory;
using Vmm.Devices.Acpi;
using Vmm.Devices.Pci;
using Vmm.Virtio;
using Vmm.Virtio.SharedMemory;
using Vmm.Virtio.Transport;
using Vmm.Virtio.Transport.Mmio;
using Vmm.Virtio.Transport.Pci;

namespace Vmm.Machine;

/// <summary>
/// Puts virtio devices on a machine's buses, and owns them from then on. The same devices in the same order always get the same places,
/// so that a restored guest finds them.
/// </summary>
/// <remarks>
/// There is no firmware, so BARs have addresses from the start, which a guest keeps; it switches them on. They are taken from the bottom
/// of the window for 64-bit BARs; shared memory of virtio-mmio devices comes from its top, which the host bridge is then not said to have.
/// </remarks>
internal sealed class VirtioSlots : IDisposable
{
    /// <summary>The first of four interrupts that PCI functions share: device n has number n modulo 4 of them.</summary>
    internal const uint FirstPciGsi = 16;

    // Inputs of the IOAPIC that nothing else uses, first those that the PICs have too: a guest without ACPI may know no others. The
    // interrupt of virtio-mmio is an edge and so not shared: with none left, there is no place for another device.
    private static readonly uint[] s_pins = [5, 6, 7, 10, 11, 13, 14, 15, 20, 21, 22, 23];

    private const ulong HugePage = 2UL << 20;

    private readonly MachineParts _parts;
    private readonly PciBus _bus;
    private readonly IInterruptRouter _router;
    private readonly KvmDoorbellRegistrar _doorbells;
    private readonly Action<string> _log;
    private readonly Func<EventLoop>? _relay;
    private readonly List<IVirtioTransport> _transports = [];
    private readonly List<VirtioMmioAcpi> _mmio = [];
    private readonly PciMemory _pciMemory;
    private readonly AddressAllocator _bars;

    // Where shared memory of virtio-mmio devices begins; it grows downwards.
    private ulong _sharedMemory;

    /// <summary>Begins without devices.</summary>
    /// <param name="parts">Whose buses and memory they are put on.</param>
    /// <param name="bus">The PCI bus.</param>
    /// <param name="router">Their interrupts.</param>
    /// <param name="log">Takes sentences about what went wrong at a device.</param>
    /// <param name="relay">Gives a thread that relays interrupts, for devices whose queues others serve; it outlives this.</param>
    internal VirtioSlots(MachineParts parts, PciBus bus, IInterruptRouter router, Action<string> log, Func<EventLoop>? relay = null)
    {
        _parts = parts;
        _bus = bus;
        _router = router;
        _log = log;
        _relay = relay;
        _doorbells = new KvmDoorbellRegistrar(parts.Vm);
        AddressRange window = parts.Layout.Pci64;
        _pciMemory = new PciMemory(parts.Mmio, MemoryLayout.Pci32, window);
        _bars = new AddressAllocator(window.IsEmpty ? MemoryLayout.Pci32 : window);
        _sharedMemory = _bars.Window.End;
    }

    /// <summary>The devices on their buses, in the order in which they were added; for pause, save and restore.</summary>
    internal IReadOnlyList<IVirtioTransport> Transports => _transports;

    internal IEnumerable<VirtioDevice> Devices => _transports.Select(transport => transport.Device);

    /// <summary>What ACPI is to say of the devices on virtio-mmio.</summary>
    internal IReadOnlyList<VirtioMmioAcpi> Acpi => _mmio;

    /// <summary>The window for 64-bit BARs, without what devices on virtio-mmio have of it; empty where there is none.</summary>
    internal AddressRange Window64 => Cut(_parts.Layout.Pci64);

    /// <summary>The window for 32-bit BARs; cut likewise where it is the only one.</summary>
    internal AddressRange Window32 => _parts.Layout.Pci64.IsEmpty ? Cut(MemoryLayout.Pci32) : MemoryLayout.Pci32;

    /// <summary>What a guest without ACPI finds the devices on virtio-mmio by, if its kernel was built to.</summary>
    internal IEnumerable<string> CommandLineFragments =>
        _mmio.Select(slot => $"virtio_mmio.device={slot.Registers.Length >> 10}K@0x{slot.Registers.Start:x}:{slot.Gsi}");

    /// <summary>Where INTA of a device on the PCI bus arrives.</summary>
    internal static uint PciGsi(int device) => FirstPciGsi + (uint)(device % 4);

    /// <summary>Puts a device on a bus.</summary>
    /// <exception cref="VmmException">There is no place left for it, or the host refuses. The device has been disposed of.</exception>
    internal void Add(VirtioDevice device, VirtioBus bus)
    {
        IDisposable owner = device;
        try
        {
            foreach (SharedMemoryRegion region in device.SharedMemory)
            {
                _parts.Faults.Add(region);
                region.ShareWithDevices(_parts.Memory);
                // Its own place in the layout is no BAR's and no slot's: somebody must answer there too.
                if (region.PreferredAddress is { } home)
                    _parts.Mmio.Add(home, region.Length, new PreferredPlace(region), device.Id);
            }
            if (bus == VirtioBus.Mmio)
                AddMmio(device, ref owner);
            else
                AddPci(device, ref owner);
        }
        catch
        {
            owner.Dispose();
            throw;
        }
    }

    /// <summary>Makes all devices stand still.</summary>
    internal void Pause()
    {
        foreach (IVirtioTransport transport in _transports)
            transport.BeginPause();
        foreach (IVirtioTransport transport in _transports)
            transport.Pause();
    }

    /// <summary>Lets them go on.</summary>
    internal void Resume()
    {
        foreach (IVirtioTransport transport in _transports)
            transport.Resume();
    }

    public void Dispose()
    {
        // All stand still before the first is gone: one may be using another's shared memory.
        Pause();
        foreach (IVirtioTransport transport in _transports)
            transport.Dispose();
    }

    private void AddMmio(VirtioDevice device, ref IDisposable owner)
    {
        int index = _mmio.Count;
        if (index == s_pins.Length)
        {
            throw VmmException.Configuration(
                $"Cannot put {device.Id} on the MMIO bus: there are interrupts for {s_pins.Length} devices there, and all are taken. Put it on the PCI bus (bus=pci).");
        }
        AddressRange registers = MemoryLayout.VirtioMmioSlot(index);
        ulong[] sharedMemory = [.. device.SharedMemory.Select(region => region.PreferredAddress ?? AllocateSharedMemory(device, region))];
        var transport = new VirtioMmioTransport(
            device, _parts.Memory, registers.Start, sharedMemory, _router.ConnectPin(s_pins[index]), _doorbells, _log);
        owner = transport;
        _parts.Mmio.Add(registers.Start, registers.Length, transport, device.Id);
        _mmio.Add(new VirtioMmioAcpi(index, registers, s_pins[index]));
        _transports.Add(transport);
    }

    private ulong AllocateSharedMemory(VirtioDevice device, SharedMemoryRegion region)
    {
        ulong alignment = region.Length >= HugePage ? HugePage : MemoryLayout.PageSize;
        ulong start = (_sharedMemory - region.Length) & ~(alignment - 1);
        if (region.Length > _sharedMemory - _bars.Window.Start || !_bars.TryAllocateAt(start, region.Length))
            throw NoRoom(device, region.Length);
        // On the bus, so that no BAR can cover it.
        _parts.Mmio.Add(start, region.Length, region.Behind, device.Id);
        _sharedMemory = start;
        return start;
    }

    private void AddPci(VirtioDevice device, ref IDisposable owner)
    {
        int number = FreePciDevice(device);
        var transport = new VirtioPciTransport(
            device, _parts.Memory, _pciMemory, _router, _router.ConnectShared(PciGsi(number)), _doorbells, _log, _relay);
        owner = transport;
        transport.AssignBars(
            AllocateBar(device, transport.RegistersSize),
            transport.SharedMemorySize == 0 ? null : AllocateBar(device, transport.SharedMemorySize));
        _bus.Add(number, 0, transport, device.Id);
        _transports.Add(transport);
    }

    private int FreePciDevice(VirtioDevice device)
    {
        IReadOnlyList<(int Device, int Function, string Name)> taken = _bus.Functions;
        for (int number = 1; number < PciRegisters.DeviceCount; number++)
        {
            if (!taken.Any(function => function.Device == number))
                return number;
        }
        throw VmmException.Configuration(
            $"Cannot put {device.Id} on the PCI bus: all its {PciRegisters.DeviceCount} devices are taken. Put it on the MMIO bus (bus=mmio).");
    }

    private ulong AllocateBar(VirtioDevice device, ulong size) =>
        _bars.TryAllocate(size, size, out ulong address) ? address : throw NoRoom(device, size);

    private VmmException NoRoom(VirtioDevice device, ulong size) => VmmException.Configuration(
        $"Cannot place {device.Id}: it needs 0x{size:x} bytes of the guest's address space, and the window for devices at {_bars.Window} has no such room left. Use fewer or smaller devices.");

    private AddressRange Cut(AddressRange window) => window.IsEmpty ? window : new AddressRange(window.Start, _sharedMemory - window.Start);
}
