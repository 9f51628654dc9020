using Vmm.Core.Boot.Acpi;
using Vmm.Core.Memory;

namespace Vmm.Devices.Acpi;

/// <summary>A virtio-mmio slot (LNRO0005) with its registers and its interrupt.</summary>
/// <param name="Index">The slot, 0 to 4095: the _UID, and in the node's name.</param>
/// <param name="Registers">Below 4 GiB.</param>
/// <param name="Gsi">Its global system interrupt.</param>
/// <param name="Trigger">
/// How it is signalled. Edge is right for an irqfd without a resample event: each interrupt is an edge, and the driver reads and
/// acknowledges InterruptStatus each time.
/// </param>
public sealed record VirtioMmioAcpi(int Index, AddressRange Registers, uint Gsi, AmlInterrupt Trigger = AmlInterrupt.Edge) : IAcpiDescribed
{
    /// <inheritdoc/>
    public void AppendAml(AmlWriter writer)
    {
        const string Digits = "0123456789ABCDEF";
        Span<char> name = ['V', Digits[Index >> 8 & 0xF], Digits[Index >> 4 & 0xF], Digits[Index & 0xF]];
        using (writer.Device(name))
        {
            writer.NameObject("_HID").String("LNRO0005").NameObject("_UID").Integer((ulong)Index).NameObject("_CRS");
            using (writer.ResourceTemplate())
                writer.Memory32Fixed(checked((uint)Registers.Start), checked((uint)Registers.Length)).Interrupt(Gsi, Trigger);
        }
    }
}
