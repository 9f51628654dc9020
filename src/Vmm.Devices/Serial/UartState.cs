namespace Vmm.Devices.Serial;

/// <summary>Saved state of a <see cref="Uart16550A"/>.</summary>
public sealed record UartState
{
    /// <summary>The version this program writes and reads.</summary>
    public const int CurrentVersion = 1;

    /// <summary>Version of this record's layout.</summary>
    public int Version { get; init; } = CurrentVersion;

    /// <summary>Interrupt enable register.</summary>
    public byte Ier { get; init; }

    /// <summary>FIFO control register without its self-clearing bits.</summary>
    public byte Fcr { get; init; }

    /// <summary>Line control register.</summary>
    public byte Lcr { get; init; }

    /// <summary>Modem control register.</summary>
    public byte Mcr { get; init; }

    /// <summary>Modem status register with its change bits.</summary>
    public byte Msr { get; init; }

    /// <summary>Scratch register.</summary>
    public byte Scr { get; init; }

    /// <summary>Divisor latch.</summary>
    public ushort Divisor { get; init; }

    /// <summary>A loopback byte was lost since the line status was read.</summary>
    public bool Overrun { get; init; }

    /// <summary>The transmitter became empty since the guest last saw that interrupt.</summary>
    public bool ThrEmptyPending { get; init; }

    /// <summary>Received bytes the guest has not read, the oldest first; at most 16.</summary>
    public byte[] Received { get; init; } = [];
}
