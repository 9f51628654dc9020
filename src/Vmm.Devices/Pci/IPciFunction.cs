namespace Vmm.Devices.Pci;

/// <summary>A function on a PCI bus. The same rules hold as for a device on any bus: its own lock, no allocation, no exception.</summary>
public interface IPciFunction
{
    /// <summary>
    /// Reads configuration space. The access lies wholly inside it: <paramref name="offset"/> plus the length (1 to 8 bytes) is at most
    /// <see cref="PciRegisters.Size"/>.
    /// </summary>
    void ReadConfiguration(int offset, Span<byte> data);

    /// <summary>Writes configuration space, with the same rules.</summary>
    void WriteConfiguration(int offset, ReadOnlySpan<byte> data);

    /// <summary>Resets the function as the bus's reset does.</summary>
    void Reset();
}
