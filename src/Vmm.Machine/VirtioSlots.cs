using Vmm.Core;
using Vmm.Core.Kvm;
using Vmm.Core.Memory;
using Vmm.Devices.Acpi;
using Vmm.Virtio;
using Vmm.Virtio.Transport;
using Vmm.Virtio.Transport.Mmio;

namespace Vmm.Machine;

/// <summary>Puts virtio devices on a machine's buses, and owns them from then on.</summary>
internal sealed class VirtioSlots(MachineParts parts, Action<string> log) : IDisposable
{
    // Inputs of the IOAPIC that nothing else uses; 16 to 19 are PCI's.
    private static readonly uint[] s_pins = [5, 6, 7, 10, 11, 13, 14, 15, 20, 21, 22, 23];

    private readonly List<IVirtioTransport> _transports = [];
    private readonly List<VirtioMmioAcpi> _acpi = [];
    private readonly KvmInterruptRouter _router = new(parts.Vm);
    private readonly KvmDoorbellRegistrar _doorbells = new(parts.Vm);

    internal IReadOnlyList<VirtioMmioAcpi> Acpi => _acpi;

    internal IEnumerable<VirtioDevice> Devices => _transports.Select(transport => transport.Device);

    internal IEnumerable<string> CommandLineFragments =>
        _acpi.Select(slot => $"virtio_mmio.device={slot.Registers.Length >> 10}K@0x{slot.Registers.Start:x}:{slot.Gsi}");

    internal void Add(VirtioDevice device, VirtioBus bus)
    {
        if (bus != VirtioBus.Mmio)
            throw VmmException.Configuration("virtio-pci is not there yet");
        int index = _acpi.Count;
        if (index == s_pins.Length)
            throw VmmException.Configuration($"Cannot put {device.Id} on virtio-mmio: there are interrupts for {s_pins.Length} devices; put it on PCI (bus=pci).");
        AddressRange slot = MemoryLayout.VirtioMmioSlot(index);
        var transport = new VirtioMmioTransport(device, parts.Memory, slot.Start, device.SharedMemory.Select(_ => parts.Layout.Pmem[0].Start).ToArray(), _router.ConnectPin(s_pins[index]), _doorbells, log);
        _transports.Add(transport);
        parts.Mmio.Add(slot.Start, slot.Length, transport, device.Id);
        _acpi.Add(new VirtioMmioAcpi(index, slot, s_pins[index]));
    }

    public void Dispose()
    {
        foreach (IVirtioTransport transport in _transports)
            transport.Dispose();
    }
}
