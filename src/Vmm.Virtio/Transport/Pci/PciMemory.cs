using Vmm.Core.Bus;
using Vmm.Core.Memory;

namespace Vmm.Virtio.Transport.Pci;

/// <summary>
/// The memory that the host bridge passes on to its bus: functions put what their BARs ask for there. A guest writes those as it likes;
/// what lies outside the windows never reaches the bus, as on a real one, so no BAR can cover RAM or another part of the machine.
/// </summary>
internal sealed class PciMemory
{
    private readonly AddressBus _mmio;
    private readonly AddressRange[] _windows;

    internal PciMemory(AddressBus mmio, params ReadOnlySpan<AddressRange> windows)
    {
        _mmio = mmio;
        _windows = windows.ToArray();
    }

    /// <summary>Puts a BAR somewhere.</summary>
    /// <param name="range">Where the guest wants it.</param>
    /// <param name="device">What answers there.</param>
    /// <param name="name">Named in the problem of another.</param>
    /// <returns>What is wrong, as a clause; null where it answers now.</returns>
    internal string? TryClaim(AddressRange range, IBusDevice device, string name)
    {
        foreach (AddressRange window in _windows)
        {
            if (window.Contains(range.Start, range.Length))
                return _mmio.TryAdd(range.Start, range.Length, device, name, out string? there) ? null : $"{there} is there";
        }
        return "the host bridge passes nothing on there";
    }

    /// <summary>Takes a BAR away again.</summary>
    internal void Release(ulong start) => _mmio.Remove(start);
}
