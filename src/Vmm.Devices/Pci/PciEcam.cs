using Vmm.Core.Bus;

namespace Vmm.Devices.Pci;

/// <summary>
/// Memory-mapped configuration space (PCI Express Base 5.0 section 7.2.2). The MCFG table has to tell its base and its buses; 1
/// MiB for each bus.
/// </summary>
public sealed class PciEcam : IBusDevice
{
    /// <summary>Bytes of address space for each bus.</summary>
    public const ulong LengthPerBus = 1 << 20;

    private readonly PciBus _bus;

    /// <summary>Makes the window.</summary>
    /// <param name="bus">The root bus.</param>
    public PciEcam(PciBus bus)
    {
        ArgumentNullException.ThrowIfNull(bus);
        _bus = bus;
    }

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data) =>
        _bus.Read(BusOf(offset), (uint)(offset >> 12) & 0xFF, (int)(offset & 0xFFF), data);

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data) =>
        _bus.Write(BusOf(offset), (uint)(offset >> 12) & 0xFF, (int)(offset & 0xFFF), data);

    private static uint BusOf(ulong offset) => (uint)Math.Min(offset / LengthPerBus, uint.MaxValue);
}
