using System.Diagnostics;
using System.Text.RegularExpressions;
using Vmm.Core.Boot.Acpi;
using Vmm.Core.Memory;
using Vmm.Core.Tests.Boot.Acpi;
using Vmm.Devices.Acpi;

namespace Vmm.Devices.Tests.Acpi;

public sealed class AcpiNodesTests
{
    private static readonly IAcpiDescribed[] s_all =
    [
        new SerialPortAcpi(0, 0x3F8, 4),
        new SerialPortAcpi(1, 0x2F8, 3),
        new RtcAcpi(),
        new KeyboardControllerAcpi(),
        new PvpanicAcpi(),
        new MotherboardAcpi { Ports = [(0x600, 0x0C), (0xCF9, 1)] },
        new PciHostBridgeAcpi
        {
            Window64 = MemoryLayout.Create(512UL << 20, 46).Pci64,
            Interrupts = PciInterruptRoute.Swizzle([.. Enumerable.Range(1, 31)]),
        },
        .. Enumerable.Range(0, 8).Select(i => new VirtioMmioAcpi(i, MemoryLayout.VirtioMmioSlot(i), 24u + (uint)i)),
        new VirtioMmioAcpi(0xABC, MemoryLayout.VirtioMmioSlot(0xABC), 10, AmlInterrupt.Level | AmlInterrupt.Shared),
    ];

    private static byte[] Dsdt(params IAcpiDescribed[] devices) =>
        new AcpiTableReader(AcpiTables.Build(new AcpiDescription { ApicIds = [0, 1], Devices = devices }), AcpiTables.Start).Tables["DSDT"];

    /// <summary>The disassembly with runs of white space and comments taken out, so that it can be searched.</summary>
    private static string Source(params IAcpiDescribed[] devices)
    {
        string source = Iasl.RoundTrip(Dsdt(devices));
        source = Regex.Replace(source, @"//[^\n]*|/\*.*?\*/", " ", RegexOptions.Singleline);
        return Regex.Replace(source, @"\s+", " ");
    }

    [SkippableFact]
    public void A_machine_with_everything_is_understood_and_written_again_the_same()
    {
        Iasl.Require();
        string source = Source(s_all);
        foreach (string device in (string[])["C000", "C001", "COM1", "COM2", "RTC", "PS2K", "PEVT", "MBRD", "PCI0", "V000", "V007", "VABC"])
            Assert.Contains($"Device ({device})", source, StringComparison.Ordinal);
        Assert.Contains("Name (\\_S5, Package (0x04) { 0x05, Zero, Zero, Zero })", source, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void Legacy_devices_have_their_ids_ports_and_interrupts()
    {
        Iasl.Require();
        string source = Source(s_all[..5]);
        Assert.Contains("""Device (COM1) { Name (_HID, EisaId ("PNP0501") ) Name (_UID, Zero) Name (_CRS, ResourceTemplate () { IO (Decode16, 0x03F8, 0x03F8, 0x01, 0x08, ) IRQNoFlags () {4} }) }""", source, StringComparison.Ordinal);
        Assert.Contains("""Device (COM2) { Name (_HID, EisaId ("PNP0501") ) Name (_UID, One) Name (_CRS, ResourceTemplate () { IO (Decode16, 0x02F8, 0x02F8, 0x01, 0x08, ) IRQNoFlags () {3} }) }""", source, StringComparison.Ordinal);
        Assert.Contains("""Name (_HID, EisaId ("PNP0B00") ) Name (_CRS, ResourceTemplate () { IO (Decode16, 0x0070, 0x0070, 0x01, 0x02, ) IRQNoFlags () {8} })""", source, StringComparison.Ordinal);
        Assert.Contains("""Name (_HID, EisaId ("PNP0303") ) Name (_CRS, ResourceTemplate () { IO (Decode16, 0x0060, 0x0060, 0x01, 0x01, ) IO (Decode16, 0x0064, 0x0064, 0x01, 0x01, ) IRQNoFlags () {1} })""", source, StringComparison.Ordinal);
        Assert.Contains("""Name (_HID, "QEMU0001") Name (_CRS, ResourceTemplate () { IO (Decode16, 0x0505, 0x0505, 0x01, 0x01, ) })""", source, StringComparison.Ordinal);
        Assert.DoesNotContain("IRQ", Source(new RtcAcpi(Irq: null)), StringComparison.Ordinal);
    }

    [SkippableFact]
    public void Virtio_mmio_slots_have_their_registers_and_interrupts()
    {
        Iasl.Require();
        string source = Source(s_all[^9..]);
        Assert.Equal(9, source.Split("\"LNRO0005\"").Length - 1);
        Assert.Contains("""Device (V007) { Name (_HID, "LNRO0005") Name (_UID, 0x07) Name (_CRS, ResourceTemplate () { Memory32Fixed (ReadWrite, 0xC0008000, 0x00001000, ) Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, ) { 0x0000001F, } }) }""", source, StringComparison.Ordinal);
        Assert.Contains("Name (_UID, 0x0ABC)", source, StringComparison.Ordinal);
        Assert.Contains("Interrupt (ResourceConsumer, Level, ActiveHigh, Shared, ,, ) { 0x0000000A, }", source, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void The_host_bridge_has_its_buses_windows_and_routes()
    {
        Iasl.Require();
        string source = Source(s_all[6]);
        Assert.Contains("""Device (PCI0) { Name (_HID, EisaId ("PNP0A08") ) Name (_CID, EisaId ("PNP0A03") ) Name (_UID, Zero) Name (_BBN, Zero)""", source, StringComparison.Ordinal);
        Assert.Contains("WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0x0000, 0x0000, 0x00FF, 0x0000, 0x0100, ,, )", source, StringComparison.Ordinal);
        Assert.Contains("IO (Decode16, 0x0CF8, 0x0CF8, 0x01, 0x08, )", source, StringComparison.Ordinal);
        Assert.Contains("EntireRange, 0x0000, 0x0000, 0x0CF7, 0x0000, 0x0CF8, ,, , TypeStatic, DenseTranslation)", source, StringComparison.Ordinal);
        Assert.Contains("EntireRange, 0x0000, 0x0D00, 0xFFFF, 0x0000, 0xF300, ,, , TypeStatic, DenseTranslation)", source, StringComparison.Ordinal);
        Assert.Contains("DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite, 0x00000000, 0xD0000000, 0xDFFFFFFF, 0x00000000, 0x10000000, ,, , AddressRangeMemory, TypeStatic)", source, StringComparison.Ordinal);
        Assert.Contains("QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite, 0x0000000000000000, 0x0000008000000000, 0x000000FFFFFFFFFF, 0x0000000000000000, 0x0000008000000000, ,, , AddressRangeMemory, TypeStatic)", source, StringComparison.Ordinal);
        Assert.Contains("Method (_PRT, 0, Serialized) { Return (Package (0x7C) { Package (0x04) { 0x0001FFFF, Zero, Zero, 0x11 }, Package (0x04) { 0x0001FFFF, One, Zero, 0x12 }", source, StringComparison.Ordinal);
        Assert.Contains("Package (0x04) { 0x001FFFFF, 0x03, Zero, 0x12 } })", source, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void The_host_bridge_grants_native_control_of_what_it_has()
    {
        Iasl.Require();
        string source = Source(s_all[6]);
        Assert.Contains("""Method (_OSC, 4, Serialized) { CreateDWordField (Arg3, Zero, STS) If ((Arg0 == ToUUID ("33db4d5b-1ff7-401c-9657-7441c03dd766") )) { CreateDWordField (Arg3, 0x08, CTL) Local0 = (CTL & 0x1D) If ((Local0 != CTL)) { STS |= 0x10 CTL = Local0 } If ((Arg1 != One)) { STS |= 0x08 } } Else { STS |= 0x04 } Return (Arg3) }""", source, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void What_a_bridge_lacks_is_left_out()
    {
        Iasl.Require();
        string source = Source(new PciHostBridgeAcpi { Window64 = default, HasPorts = false, LastBus = 0 });
        Assert.DoesNotContain("QWordMemory", source, StringComparison.Ordinal);
        Assert.DoesNotContain("WordIO", source, StringComparison.Ordinal);
        Assert.DoesNotContain("IO (", source, StringComparison.Ordinal);
        Assert.DoesNotContain("_PRT", source, StringComparison.Ordinal);
        Assert.Contains("0x0000, 0x0000, 0x0000, 0x0000, 0x0001", source, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void The_motherboard_reserves_ecam_and_ports()
    {
        Iasl.Require();
        string source = Source(s_all[5]);
        Assert.Contains("""Name (_HID, EisaId ("PNP0C02") ) Name (_CRS, ResourceTemplate () { Memory32Fixed (ReadWrite, 0xE0000000, 0x10000000, ) IO (Decode16, 0x0600, 0x0600, 0x01, 0x0C, ) IO (Decode16, 0x0CF9, 0x0CF9, 0x01, 0x01, ) })""", source, StringComparison.Ordinal);
        Assert.DoesNotContain("Memory32Fixed", Source(new MotherboardAcpi { Ecam = default }), StringComparison.Ordinal);
    }

    [Fact]
    public void Routes_give_each_pin_of_each_device_one_of_four_interrupts()
    {
        PciInterruptRoute[] routes = PciInterruptRoute.Swizzle([2, 7]);
        Assert.Equal(8, routes.Length);
        Assert.Equal([18u, 19u, 16u, 17u], routes[..4].Select(route => route.Gsi));
        Assert.Equal([19u, 16u, 17u, 18u], routes[4..].Select(route => route.Gsi));
        Assert.Equal([(2, 0), (2, 1), (2, 2), (2, 3), (7, 0), (7, 1), (7, 2), (7, 3)], routes.Select(route => (route.Device, route.Pin)));
    }

    [Fact]
    public void A_usual_machine_is_small_and_built_in_well_under_100_us()
    {
        AcpiDescription description = new()
        {
            ApicIds = [0],
            Devices = [new SerialPortAcpi(0, 0x3F8, 4), new RtcAcpi(), new PvpanicAcpi(), new VirtioMmioAcpi(0, MemoryLayout.VirtioMmioSlot(0), 24)],
            Ecam = default,
        };
        Assert.InRange(AcpiTables.Build(description).Length, 500, 1024);

        // Routes for eight devices, not for all 31 that a bus could have.
        PciHostBridgeAcpi bridge = (PciHostBridgeAcpi)s_all[6] with { Interrupts = PciInterruptRoute.Swizzle([1, 2, 3, 4, 5, 6, 7, 8]) };
        AcpiDescription everything = description with { Devices = [.. s_all[..6], bridge, .. s_all[7..]], Ecam = MemoryLayout.Ecam };
        TimeSpan best = TimeSpan.MaxValue;
        for (int i = 0; i < 2000; i++)
        {
            long start = Stopwatch.GetTimestamp();
            AcpiTables.Build(everything);
            TimeSpan time = Stopwatch.GetElapsedTime(start);
            best = time < best ? time : best;
        }
        Assert.True(best < TimeSpan.FromMicroseconds(100), $"The best of 2000 runs took {best.TotalMicroseconds} us.");
    }
}
