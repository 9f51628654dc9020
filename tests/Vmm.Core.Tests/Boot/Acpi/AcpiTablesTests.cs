using System.Buffers.Binary;
using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;
using Vmm.Core.Boot.Acpi;
using Vmm.Core.Memory;

namespace Vmm.Core.Tests.Boot.Acpi;

public sealed class AcpiTablesTests
{
    private static AcpiDescription With(int cpus) => new() { ApicIds = [.. Enumerable.Range(0, cpus).Select(i => (uint)i)] };

    private static Dictionary<string, byte[]> Tables(AcpiDescription description) =>
        new AcpiTableReader(AcpiTables.Build(description), AcpiTables.Start).Tables;

    private static string Field(string source, string name) =>
        source.Split('\n').First(line => line.Contains($" {name} : ", StringComparison.Ordinal)).Split(" : ")[1].Trim();

    [Theory]
    [InlineData(1)]
    [InlineData(8)]
    [InlineData(255)]
    [InlineData(1000)]
    public void Every_table_is_found_with_a_right_checksum(int cpus) =>
        Assert.Equal(
            ["APIC", "DSDT", "FACP", "FACS", "MCFG", "RSDP", "XSDT"],
            Tables(With(cpus)).Keys.Order(StringComparer.Ordinal));

    [SkippableTheory]
    [InlineData("XSDT", 1)]
    [InlineData("FACS", 1)]
    [InlineData("FACP", 1)]
    [InlineData("MCFG", 1)]
    [InlineData("APIC", 1)]
    [InlineData("APIC", 300)]
    [InlineData("DSDT", 1)]
    [InlineData("DSDT", 300)]
    public void Iasl_reads_every_table_and_writes_the_same(string table, int cpus)
    {
        Iasl.Require();
        Iasl.RoundTrip(Tables(With(cpus))[table]);
    }

    /// <summary>Not every version of iasl takes an RSDP apart, but all make one from its fields.</summary>
    [SkippableFact]
    public void The_rsdp_is_what_iasl_makes_of_its_fields()
    {
        Iasl.Require();
        byte[] area = AcpiTables.Build(With(1));
        ulong xsdt = BinaryPrimitives.ReadUInt64LittleEndian(area.AsSpan(24));
        Assert.Equal("XSDT", Encoding.ASCII.GetString(area, (int)(xsdt - AcpiTables.Start), 4));
        byte[] expected = Iasl.Compile($"""
            [0008] Signature : "RSD PTR "
            [0001] Checksum : 00
            [0006] Oem ID : "VMM   "
            [0001] Revision : 02
            [0004] RSDT Address : 00000000
            [0004] Length : 00000024
            [0008] XSDT Address : {xsdt:X16}
            [0001] Extended Checksum : 00
            [0003] Reserved : 000000

            """);
        Assert.Equal(Convert.ToHexString(expected), Convert.ToHexString(area.AsSpan(0, 36)));
    }

    [SkippableFact]
    public void The_fadt_has_fixed_hardware_a_reset_register_and_a_fixed_power_button()
    {
        Iasl.Require();
        string fadt = Iasl.Disassemble(Tables(With(1) with { PmTimerIs32Bit = true })["FACP"]);
        Assert.Equal("0009", Field(fadt, "SCI Interrupt"));
        Assert.Equal("00000000", Field(fadt, "SMI Command Port"));
        Assert.Equal("00000600", Field(fadt, "PM1A Event Block Address"));
        Assert.Equal("00000604", Field(fadt, "PM1A Control Block Address"));
        Assert.Equal("00000608", Field(fadt, "PM Timer Block Address"));
        Assert.Equal("0", Field(fadt, "Control Method Power Button (V1)"));
        Assert.Equal("1", Field(fadt, "Control Method Sleep Button (V1)"));
        Assert.Equal("1", Field(fadt, "32-bit PM Timer (V1)"));
        Assert.Equal("1", Field(fadt, "Reset Register Supported (V2)"));
        Assert.Equal("0", Field(fadt, "Hardware Reduced (V5)"));
        Assert.Equal("06", Field(fadt, "Value to cause reset"));
        Assert.Equal("1", Field(fadt, "Legacy Devices Supported (V2)"));
        Assert.Equal("1", Field(fadt, "8042 Present on ports 60/64 (V2)"));
        Assert.Equal("1", Field(fadt, "VGA Not Present (V4)"));
        Assert.Contains("Address : 0000000000000CF9", fadt, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void The_power_management_timer_can_be_left_out()
    {
        Iasl.Require();
        string fadt = Iasl.RoundTrip(Tables(With(1) with { PmTimerPort = null, PmTimerIs32Bit = true })["FACP"]);
        Assert.Equal("00000000", Field(fadt, "PM Timer Block Address"));
        Assert.Equal("00", Field(fadt, "PM Timer Block Length"));
        Assert.Equal("0", Field(fadt, "32-bit PM Timer (V1)"));
        Assert.DoesNotContain("0000000000000608", fadt, StringComparison.Ordinal);
    }

    [Fact]
    public void The_madt_lists_processors_overrides_and_nmi_byte_for_byte()
    {
        byte[] madt = Tables(With(2) with { ApicIds = [0, 4] })["APIC"];
        Assert.Equal(
            "0000E0FE" + "01000000"
            + "0008" + "0000" + "01000000"
            + "0008" + "0104" + "01000000"
            + "010C" + "0000" + "0000C0FE" + "00000000"
            + "020A" + "0000" + "02000000" + "0000"
            + "020A" + "0009" + "09000000" + "0D00"
            + "0406" + "FF" + "0000" + "01",
            Convert.ToHexString(madt.AsSpan(36)));
    }

    [Fact]
    public void Overrides_are_left_out_where_nothing_differs()
    {
        byte[] madt = Tables(With(1) with { TimerGsi = 0, SciGsi = 20 })["APIC"];
        Assert.Equal(44 + 8 + 12 + 6, madt.Length);
    }

    [SkippableFact]
    public void Processors_from_255_on_are_x2apics()
    {
        Iasl.Require();
        string madt = Iasl.Disassemble(Tables(With(3) with { ApicIds = [0, 254, 255] })["APIC"]);
        Assert.Equal(2, madt.Split("[Processor Local APIC]").Length - 1);
        Assert.Equal(1, madt.Split("[Processor Local x2APIC]").Length - 1);
        Assert.Equal("000000FF", Field(madt, "Processor x2Apic ID"));
        Assert.Equal("00000002", Field(madt, "Processor UID"));
        Assert.Contains("[Local x2APIC NMI]", madt, StringComparison.Ordinal);

        // Many processors: the index does not fit a byte either, though some ids would.
        string many = Iasl.Disassemble(Tables(With(300))["APIC"]);
        Assert.Equal(255, many.Split("[Processor Local APIC]").Length - 1);
        Assert.Equal(45, many.Split("[Processor Local x2APIC]").Length - 1);
    }

    [SkippableFact]
    public void The_mcfg_tells_where_ecam_is_and_is_left_out_without_pci()
    {
        Iasl.Require();
        string mcfg = Iasl.Disassemble(Tables(With(1))["MCFG"]);
        Assert.Equal("00000000E0000000", Field(mcfg, "Base Address"));
        Assert.Equal("00", Field(mcfg, "Start Bus Number"));
        Assert.Equal("FF", Field(mcfg, "End Bus Number"));

        Dictionary<string, byte[]> without = Tables(With(1) with { Ecam = default });
        Assert.DoesNotContain("MCFG", without.Keys);
        Assert.Equal(36 + 2 * 8, without["XSDT"].Length);
    }

    [SkippableFact]
    public void The_dsdt_has_processors_soft_off_and_what_devices_add()
    {
        Iasl.Require();
        AcpiDescription description = With(18) with { Devices = [new Node("DEV0"), new Node("DEV1")] };
        string dsdt = Iasl.RoundTrip(Tables(description)["DSDT"]);
        Assert.Contains("DefinitionBlock (\"\", \"DSDT\", 2, \"VMM", dsdt, StringComparison.Ordinal);
        Assert.Contains("Name (\\_S5, Package (0x04)", dsdt, StringComparison.Ordinal);
        Assert.Equal(18, dsdt.Split("\"ACPI0007\"").Length - 1);
        Assert.Contains("Device (C000)", dsdt, StringComparison.Ordinal);
        Assert.Contains("Device (C011)", dsdt, StringComparison.Ordinal);
        Assert.Contains("Name (_UID, 0x11)", dsdt, StringComparison.Ordinal);
        Assert.True(dsdt.IndexOf("Device (DEV0)", StringComparison.Ordinal) < dsdt.IndexOf("Device (DEV1)", StringComparison.Ordinal));

        Assert.DoesNotContain("ACPI0007", Iasl.Disassemble(Tables(description with { DescribeProcessors = false })["DSDT"]), StringComparison.Ordinal);
    }

    [Fact]
    public unsafe void They_are_written_to_guest_memory_at_the_address_of_the_rsdp()
    {
        const int Size = 2 << 20;
        byte* host = (byte*)NativeMemory.Alloc(Size);
        try
        {
            new Span<byte>(host, Size).Fill(0xAA);
            GuestMemory memory = new([new GuestRegion(0, Size, (nint)host, -1, 0)]);
            byte[] expected = AcpiTables.Build(With(4));
            Assert.Equal(0xE_0000UL, AcpiTables.Write(memory, With(4)));
            Assert.True(expected.AsSpan().SequenceEqual(new Span<byte>(host + 0xE_0000, expected.Length)));
            Assert.False(new Span<byte>(host, 0xE_0000).ContainsAnyExcept((byte)0xAA));
            Assert.False(new Span<byte>(host + 0xE_0000 + expected.Length, 0x1_0000).ContainsAnyExcept((byte)0xAA));
        }
        finally
        {
            NativeMemory.Free(host);
        }
    }

    [Fact]
    public void Too_much_for_the_area_is_an_error_that_says_so()
    {
        VmmException error = Assert.Throws<VmmException>(() => AcpiTables.Build(With(5000)));
        Assert.Equal(VmmErrorKind.Configuration, error.Kind);
        Assert.Contains("128 KiB", error.Message, StringComparison.Ordinal);
        AcpiDescription broken = With(1) with { Devices = [new LeavesOpen()] };
        Assert.Throws<InvalidOperationException>(() => AcpiTables.Build(broken));
    }

    [Fact]
    public void Nothing_of_an_earlier_use_of_the_buffers_shows()
    {
        byte[] small = AcpiTables.Build(With(1));
        AcpiTables.Build(With(1000));
        Assert.Equal(small, AcpiTables.Build(With(1)));
        int dsdt = (int)(BinaryPrimitives.ReadUInt32LittleEndian(Tables(With(1))["FACP"].AsSpan(40)) - AcpiTables.Start);
        Assert.False(small.AsSpan(36, 28).ContainsAnyExcept((byte)0));
        Assert.Equal(0, dsdt % 8);
    }

    [Fact]
    public void Building_them_takes_well_under_100_us()
    {
        AcpiDescription description = With(8) with { Devices = [.. Enumerable.Range(0, 10).Select(i => new Node($"DEV{i}"))] };
        TimeSpan best = TimeSpan.MaxValue;
        // The best of many: a busy machine makes single runs slow, but not all of them.
        for (int i = 0; i < 2000; i++)
        {
            long start = Stopwatch.GetTimestamp();
            AcpiTables.Build(description);
            TimeSpan time = Stopwatch.GetElapsedTime(start);
            best = time < best ? time : best;
        }
        Assert.True(best < TimeSpan.FromMicroseconds(100), $"The best of 2000 runs took {best.TotalMicroseconds} us.");
    }

    private sealed class Node(string name) : IAcpiDescribed
    {
        public void AppendAml(AmlWriter writer)
        {
            using (writer.Device(name))
            {
                writer.NameObject("_HID").EisaId("PNP0C02").NameObject("_UID").String(name).NameObject("_CRS");
                using (writer.ResourceTemplate())
                    writer.IO(0x80, 1);
            }
        }
    }

    private sealed class LeavesOpen : IAcpiDescribed
    {
        public void AppendAml(AmlWriter writer) => writer.Device("DEV0");
    }
}
