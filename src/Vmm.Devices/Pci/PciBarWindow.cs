using Vmm.Core.Bus;
using Vmm.Core.Memory;

namespace Vmm.Devices.Pci;

/// <summary>
/// Keeps a device on a bus at the place where a base address register says it is, wherever a guest moves that to. Its function calls
/// <see cref="Update"/>, under the function's own lock, after each write to configuration space that changed
/// <see cref="PciConfigurationChanges.Bars"/> or <see cref="PciConfigurationChanges.Command"/>, and after a reset and a restore.
/// </summary>
/// <remarks>
/// Where a guest puts it over another device of the bus, which was there first, it does not answer at all, and the other one goes on
/// (PCI leaves it open who answers). It gets its place at the first update after the other one has gone. Moving it allocates; accesses
/// through it do not.
/// </remarks>
public sealed class PciBarWindow
{
    private readonly AddressBus _bus;
    private readonly IBusDevice _device;
    private readonly string _name;

    /// <summary>Makes one that is nowhere.</summary>
    /// <param name="bus">The port or the MMIO bus, as the register's kind asks for.</param>
    /// <param name="device">What answers; it is given offsets from the register's address, below its size.</param>
    /// <param name="name">Named in errors of the bus.</param>
    public PciBarWindow(AddressBus bus, IBusDevice device, string name)
    {
        ArgumentNullException.ThrowIfNull(bus);
        ArgumentNullException.ThrowIfNull(device);
        _bus = bus;
        _device = device;
        _name = name;
    }

    /// <summary>Where it answers; empty for nowhere.</summary>
    public AddressRange Range { get; private set; }

    /// <summary>Whether the register asks for a place that another device has.</summary>
    public bool IsBlocked { get; private set; }

    /// <summary>Moves the device to where the register is now, or off the bus when the register is disabled or not set.</summary>
    /// <returns>True when <see cref="Range"/> changed: what else is tied to the address (doorbells) has to follow.</returns>
    public bool Update(in PciBar bar)
    {
        AddressRange old = Range;
        AddressRange wanted = PlaceOf(bar);
        if (wanted == old)
        {
            IsBlocked = false;
            return false;
        }
        Leave();
        IsBlocked = !wanted.IsEmpty && !_bus.TryAdd(wanted.Start, wanted.Length, _device, _name);
        if (!IsBlocked)
            Range = wanted;
        return Range != old;
    }

    /// <summary>Takes the device off the bus: its function goes.</summary>
    public void Leave()
    {
        if (!Range.IsEmpty)
            _bus.Remove(Range.Start);
        Range = default;
        IsBlocked = false;
    }

    /// <summary>
    /// Where a register asks to be. Address 0 is one that was not set yet, and the very top is what a guest that asks for the size without
    /// switching the register off first puts there for a moment: neither is a place.
    /// </summary>
    private static AddressRange PlaceOf(in PciBar bar)
    {
        ulong top = bar.Kind switch
        {
            PciBarKind.None => 0,
            PciBarKind.Memory64 => 0UL - bar.Size,
            _ => (1UL << 32) - bar.Size,
        };
        return bar.Enabled && bar.Address != 0 && bar.Address != top ? new AddressRange(bar.Address, bar.Size) : default;
    }
}
