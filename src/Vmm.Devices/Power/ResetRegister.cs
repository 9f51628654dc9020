using Vmm.Core.Bus;

namespace Vmm.Devices.Power;

/// <summary>
/// The PC's reset control register at port 0xCF9, which is also the FADT's reset register (ACPI 6.5 section 4.8.3.6; Intel ICH9 data sheet
/// section 13.7.5, RST_CNT). A machine with PCI gives it to <see cref="Pci.PciConfigPorts"/>, whose ports lie around it; one
/// without puts it on the
/// bus itself, 1 byte long.
/// </summary>
public sealed class ResetRegister : IBusDevice, IDevice<ResetRegisterState>
{
    /// <summary>SYS_RST: a hard reset instead of one of the processor. Both reset the machine here.</summary>
    public const byte SystemReset = 0x02;

    /// <summary>RST_CPU: going from 0 to 1 resets.</summary>
    public const byte ResetCpu = 0x04;

    /// <summary>FULL_RST: power-cycle as well.</summary>
    public const byte FullReset = 0x08;

    private readonly IGuestEventSink _events;
    private readonly Lock _lock = new();
    private byte _value;

    /// <summary>Makes the register.</summary>
    /// <param name="events">Told when the guest resets the machine.</param>
    public ResetRegister(IGuestEventSink events)
    {
        ArgumentNullException.ThrowIfNull(events);
        _events = events;
    }

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        data.Fill(0xFF);
        if (offset != 0 || data.IsEmpty)
            return;
        lock (_lock)
            data[0] = _value;
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset != 0 || data.IsEmpty)
            return;
        bool reset;
        lock (_lock)
        {
            reset = (data[0] & ~_value & ResetCpu) != 0;
            // RST_CPU falls back by the reset it causes; the guest may write it again should the machine stay.
            _value = (byte)(data[0] & (SystemReset | FullReset));
        }
        if (reset)
            _events.Signal(GuestEvent.Reset);
    }

    /// <inheritdoc/>
    public void Reset()
    {
        lock (_lock)
            _value = 0;
    }

    /// <inheritdoc/>
    public ResetRegisterState Save()
    {
        lock (_lock)
            return new ResetRegisterState { Value = _value };
    }

    /// <inheritdoc/>
    public void Restore(ResetRegisterState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        SavedState.RequireVersion("reset register", state.Version, ResetRegisterState.CurrentVersion);
        lock (_lock)
            _value = (byte)(state.Value & (SystemReset | FullReset));
    }
}

/// <summary>Saved state of a <see cref="ResetRegister"/>.</summary>
public sealed record ResetRegisterState
{
    /// <summary>The version this program writes and reads.</summary>
    public const int CurrentVersion = 1;

    /// <summary>Version of this record's layout.</summary>
    public int Version { get; init; } = CurrentVersion;

    /// <summary>What the register reads.</summary>
    public byte Value { get; init; }
}
