using Vmm.Core.Bus;

namespace Vmm.Devices.Pvpanic;

/// <summary>
/// The paravirtual panic device (QEMU's docs/specs/pvpanic): one byte that tells the host of a guest's panic. The same device
/// serves as a port
/// and as MMIO. It has no state to save.
/// </summary>
public sealed class PvpanicDevice : IBusDevice
{
    /// <summary>The usual port; ACPI names it to the guest under the id QEMU0001.</summary>
    public const ushort Port = 0x505;

    /// <summary>How many bytes of a bus the device takes.</summary>
    public const int Length = 1;

    /// <summary>The guest panicked.</summary>
    public const byte Panicked = 0x01;

    /// <summary>The guest panicked and goes on into its crash kernel.</summary>
    public const byte CrashLoaded = 0x02;

    /// <summary>The guest has shut down in good order and is to be powered off.</summary>
    public const byte ShutDown = 0x04;

    private readonly IGuestEventSink _events;

    /// <summary>Makes the device.</summary>
    /// <param name="events">Told of the panic.</param>
    public PvpanicDevice(IGuestEventSink events)
    {
        ArgumentNullException.ThrowIfNull(events);
        _events = events;
    }

    /// <summary>Gives the events that are understood.</summary>
    public void Read(ulong offset, Span<byte> data)
    {
        data.Fill(0xFF);
        if (offset == 0 && !data.IsEmpty)
            data[0] = Panicked | CrashLoaded | ShutDown;
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset != 0 || data.IsEmpty)
            return;
        // A crash kernel first: it says that the machine goes on, which the other one would end.
        if ((data[0] & CrashLoaded) != 0)
            _events.Signal(GuestEvent.CrashLoaded);
        else if ((data[0] & Panicked) != 0)
            _events.Signal(GuestEvent.Panic);
        else if ((data[0] & ShutDown) != 0)
            _events.Signal(GuestEvent.PowerOff);
    }
}
