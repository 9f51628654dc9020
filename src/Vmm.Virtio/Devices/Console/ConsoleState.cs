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

    /// <summary>Of the console, where there are ports beside it: what was said of it.</summary>
    public ConsolePortFlags Flags { get; init; }

    /// <summary>The ports beside the console, in their order; none of a device without.</summary>
    public IReadOnlyList<ConsolePortState> Ports { get; init; } = [];
}

/// <summary>Saved state of a port beside the console.</summary>
/// <param name="Flags">What was said of it.</param>
/// <param name="Input">Input that the guest has not read; at most <see cref="ConsoleDevice.InputCapacity"/> bytes.</param>
/// <param name="Transmitted">Bytes of the next buffer of its transmit queue that are written already.</param>
/// <param name="IsClosing">The guest has closed its end, and not all that it wrote before has been taken.</param>
public sealed record ConsolePortState(ConsolePortFlags Flags, byte[] Input, ulong Transmitted, bool IsClosing);

/// <summary>What control messages have said of a port, and what is still to be said; the order of the latter is that of the values.</summary>
[Flags]
public enum ConsolePortFlags
{
    /// <summary>Nothing yet.</summary>
    None = 0,

    /// <summary>The driver is to be told of the port.</summary>
    AddDue = 1,

    /// <summary>The driver is to be told that it is a console.</summary>
    ConsoleDue = 2,

    /// <summary>The driver is to be told its name.</summary>
    NameDue = 4,

    /// <summary>The driver is to be told that the host's end is open.</summary>
    OpenDue = 8,

    /// <summary>The driver has made the port.</summary>
    Ready = 16,

    /// <summary>The driver was told that the host's end is open.</summary>
    Open = 32,

    /// <summary>The driver was told that the host's end is closed for good.</summary>
    HungUp = 64,

    /// <summary>The guest has opened its end.</summary>
    GuestOpen = 128,
}
