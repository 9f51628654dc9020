namespace Vmm.Devices.I8042;

/// <summary>Saved state of an <see cref="I8042Controller"/> and its keyboard.</summary>
public sealed record I8042State
{
    /// <summary>The version this program writes and reads.</summary>
    public const int CurrentVersion = 1;

    /// <summary>Version of this record's layout.</summary>
    public int Version { get; init; } = CurrentVersion;

    /// <summary>The controller's command byte.</summary>
    public byte CommandByte { get; init; }

    /// <summary>The controller command that waits for its parameter, or 0.</summary>
    public byte PendingCommand { get; init; }

    /// <summary>The last write went to the command port.</summary>
    public bool LastWriteWasCommand { get; init; }

    /// <summary>The output port, bit 0 aside.</summary>
    public byte OutputPort { get; init; }

    /// <summary>The controller's own answer that waits, or null.</summary>
    public byte? Reply { get; init; }

    /// <summary>Status bits that belong to <see cref="Reply"/>.</summary>
    public byte ReplyStatus { get; init; }

    /// <summary>The last byte that was read from the data port.</summary>
    public byte LastData { get; init; }

    /// <summary>The translation has seen a release prefix.</summary>
    public bool ReleasePrefix { get; init; }

    /// <summary>What the keyboard has queued, the oldest first, as it will be read; at most 32 bytes.</summary>
    public byte[] Queue { get; init; } = [];

    /// <summary>The keyboard sends keys.</summary>
    public bool Scanning { get; init; }

    /// <summary>The keyboard command that waits for its parameter, or 0.</summary>
    public byte KeyboardPending { get; init; }

    /// <summary>The keyboard's lamps.</summary>
    public byte Leds { get; init; }

    /// <summary>The keyboard's typematic rate.</summary>
    public byte Typematic { get; init; }

    /// <summary>The keyboard's scan code set.</summary>
    public byte ScanCodeSet { get; init; }

    /// <summary>The keyboard's last byte.</summary>
    public byte LastSent { get; init; }
}
