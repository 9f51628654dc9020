namespace Vmm.Virtio.Devices.Console;

/// <summary>Saved state of a <see cref="ConsoleDevice"/>.</summary>
public sealed record ConsoleState() : VirtioDeviceState(CurrentVersion)
{
    /// <summary>The version this program writes and reads.</summary>
    public const int CurrentVersion = 1;

    /// <summary>Characters in a line of the terminal, as the guest sees it.</summary>
    public ushort Columns { get; init; }

    /// <summary>Lines of the terminal.</summary>
    public ushort Rows { get; init; }

    /// <summary>Input that the guest has not read; at most <see cref="ConsoleDevice.InputCapacity"/> bytes.</summary>
    public byte[] Input { get; init; } = [];

    /// <summary>Bytes of the next buffer of the transmit queue that are written already.</summary>
    public ulong Transmitted { get; init; }
}
