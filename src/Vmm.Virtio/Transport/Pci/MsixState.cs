namespace Vmm.Virtio.Transport.Pci;

/// <summary>Saved state of an MSI-X table.</summary>
/// <param name="Entries">Four 32-bit words for each vector, as a guest reads them.</param>
/// <param name="Pending">For each vector, whether it is pending.</param>
public sealed record MsixState(uint[] Entries, bool[] Pending);
