using Vmm.Core.Boot.Acpi;
using Vmm.Core.Memory;

namespace Vmm.Devices.Acpi;

/// <summary>Where a legacy interrupt pin of a device on bus 0 arrives.</summary>
/// <param name="Device">The device's number, 0 to 31.</param>
/// <param name="Pin">0 for INTA to 3 for INTD.</param>
/// <param name="Gsi">The global system interrupt; level-triggered, shared.</param>
public readonly record struct PciInterruptRoute(int Device, int Pin, uint Gsi)
{
    /// <summary>
    /// The routes of all four pins of some devices over four interrupts, each device's pins one further than the one's before it,
    /// so that devices with one pin spread out.
    /// </summary>
    public static PciInterruptRoute[] Swizzle(ReadOnlySpan<int> devices, uint firstGsi = 16)
    {
        PciInterruptRoute[] routes = new PciInterruptRoute[devices.Length * 4];
        for (int i = 0; i < routes.Length; i++)
            routes[i] = new PciInterruptRoute(devices[i / 4], i % 4, firstGsi + (uint)((devices[i / 4] + i) % 4));
        return routes;
    }
}

/// <summary>
/// The PCI Express host bridge of segment 0 (PNP0A08, PNP0A03): its buses, the windows it passes on, and the control over PCI
/// Express features that it leaves to the system.
/// </summary>
public sealed record PciHostBridgeAcpi : IAcpiDescribed
{
    // PCI Firmware Specification 3.3 §4.5: the UUID of a host bridge's capabilities, and in them:
    private static readonly Guid s_capabilities = new("33DB4D5B-1FF7-401C-9657-7441C03DD766");

    // native hot-plug, native PME, AER, and the PCI Express capability structures; not SHPC, of which there is none.
    private const ulong GrantedControls = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4;

    // Bits of the status, §6.2.11.
    private const ulong UnrecognizedUuid = 1 << 2;
    private const ulong UnrecognizedRevision = 1 << 3;
    private const ulong CapabilitiesMasked = 1 << 4;

    /// <summary>The window for 32-bit BARs; below 4 GiB, not empty.</summary>
    public AddressRange Window32 { get; init; } = MemoryLayout.Pci32;

    /// <summary>The window for 64-bit BARs; empty where there is none.</summary>
    public required AddressRange Window64 { get; init; }

    /// <summary>The last bus.</summary>
    public byte LastBus { get; init; } = 255;

    /// <summary>
    /// Whether ports are passed on: all but 0xCF8 to 0xCFF, which are the bridge's own.
    /// </summary>
    public bool HasPorts { get; init; } = true;

    /// <summary>
    /// Where legacy interrupts arrive. Only devices that are there and have a pin need routes: with none there is no _PRT, which a
    /// machine whose devices all use MSI-X does not miss.
    /// </summary>
    public IReadOnlyList<PciInterruptRoute> Interrupts { get; init; } = [];

    /// <inheritdoc/>
    public void AppendAml(AmlWriter writer)
    {
        using (writer.Device("PCI0"))
        {
            writer.NameObject("_HID").EisaId("PNP0A08").NameObject("_CID").EisaId("PNP0A03");
            writer.NameObject("_UID").Integer(0).NameObject("_BBN").Integer(0).NameObject("_CRS");
            using (writer.ResourceTemplate())
            {
                writer.WordBusNumber(0, LastBus);
                if (HasPorts)
                    writer.IO(0xCF8, 8).WordIO(0x0000, 0x0CF7).WordIO(0x0D00, 0xFFFF);
                writer.DWordMemory(Window32);
                if (!Window64.IsEmpty)
                    writer.QWordMemory(Window64);
            }
            if (Interrupts.Count != 0)
                RoutingTable(writer);
            OperatingSystemCapabilities(writer);
        }
    }

    /// <summary>
    /// _PRT (§6.2.13). A method, so that its many packages are made only when a driver wants a legacy interrupt, not when the
    /// table is loaded.
    /// </summary>
    private void RoutingTable(AmlWriter writer)
    {
        using (writer.Method("_PRT", 0))
        {
            writer.Return();
            using (writer.Package(Interrupts.Count))
            {
                foreach (PciInterruptRoute route in Interrupts)
                {
                    using (writer.Package(4))
                        writer.Integer((ulong)route.Device << 16 | 0xFFFF).Integer((ulong)route.Pin).Integer(0).Integer(route.Gsi);
                }
            }
        }
    }

    /// <summary>_OSC (§6.2.11; arguments: UUID, revision, count, capabilities).</summary>
    private static void OperatingSystemCapabilities(AmlWriter writer)
    {
        using (writer.Method("_OSC", 4))
        {
            writer.CreateDWordField().Arg(3).Integer(0).Name("STS");
            using (writer.If())
            {
                writer.LEqual().Arg(0).Uuid(s_capabilities);
                writer.CreateDWordField().Arg(3).Integer(8).Name("CTL");
                writer.And().Name("CTL").Integer(GrantedControls).Local(0);
                using (writer.If())
                {
                    writer.LNotEqual().Local(0).Name("CTL");
                    writer.Or().Name("STS").Integer(CapabilitiesMasked).Name("STS");
                    writer.Store().Local(0).Name("CTL");
                }
                using (writer.If())
                {
                    writer.LNotEqual().Arg(1).Integer(1);
                    writer.Or().Name("STS").Integer(UnrecognizedRevision).Name("STS");
                }
            }
            using (writer.Else())
                writer.Or().Name("STS").Integer(UnrecognizedUuid).Name("STS");
            writer.Return().Arg(3);
        }
    }
}

/// <summary>Motherboard resources (PNP0C02): what no other device may be given.</summary>
public sealed record MotherboardAcpi : IAcpiDescribed
{
    /// <summary>PCI Express configuration space; systems use it only where it is reserved. Empty for none.</summary>
    public AddressRange Ecam { get; init; } = MemoryLayout.Ecam;

    /// <summary>Ports in use: the first of each range, and how many.</summary>
    public IReadOnlyList<(ushort Port, byte Length)> Ports { get; init; } = [];

    /// <inheritdoc/>
    public void AppendAml(AmlWriter writer)
    {
        using (writer.Device("MBRD"))
        {
            writer.NameObject("_HID").EisaId("PNP0C02").NameObject("_CRS");
            using (writer.ResourceTemplate())
            {
                if (!Ecam.IsEmpty)
                    writer.Memory32Fixed(checked((uint)Ecam.Start), checked((uint)Ecam.Length));
                foreach ((ushort port, byte length) in Ports)
                    writer.IO(port, length);
            }
        }
    }
}
