namespace Vmm.Virtio.Devices.Console;

/// <summary>A console device.</summary>
/// <param name="Id">The name that people gave it.</param>
/// <param name="Columns">Characters in a line of the terminal; 0 when it is not known, or there is none.</param>
/// <param name="Rows">Its lines; 0 as with the columns.</param>
/// <param name="HasConsole">Whether the guest is to have a console on it (hvc0). A device without ports has one in any case.</param>
public sealed record ConsoleConfig(string Id = "console0", ushort Columns = 0, ushort Rows = 0, bool HasConsole = true);
