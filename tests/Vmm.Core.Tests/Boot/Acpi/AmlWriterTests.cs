using Vmm.Core.Boot.Acpi;
using Vmm.Core.Memory;

namespace Vmm.Core.Tests.Boot.Acpi;

/// <summary>Bytes as ACPI 6.5 §20 and §6.4 have them.</summary>
public sealed class AmlWriterTests
{
    private static string Hex(Action<AmlWriter> write)
    {
        using AmlWriter writer = new(1);
        write(writer);
        Assert.Equal(0, writer.OpenBlocks);
        return Convert.ToHexString(writer.Written);
    }

    [Theory]
    [InlineData("\\", "5C00")]
    [InlineData("^", "5E00")]
    [InlineData("_CRS", "5F435253")]
    [InlineData("A", "415F5F5F")]
    [InlineData("\\_SB", "5C5F53425F")]
    [InlineData("^^PCI0", "5E5E50434930")]
    [InlineData("\\_SB.PCI0", "5C2E5F53425F50434930")]
    [InlineData("^A.B.C", "5E2F03415F5F5F425F5F5F435F5F5F")]
    [InlineData("_SB.PCI0.ISA.COM1", "2F045F53425F504349304953415F434F4D31")]
    public void Names(string path, string expected) => Assert.Equal(expected, Hex(w => w.Name(path)));

    [Theory]
    [InlineData("")]
    [InlineData("ABCDE")]
    [InlineData("0ABC")]
    [InlineData("abcd")]
    [InlineData("A..B")]
    [InlineData("A.")]
    [InlineData("\\^A")]
    [InlineData("A B")]
    [InlineData("\u00C4")]
    public void Wrong_names_are_refused(string path) => Assert.Throws<ArgumentException>(() => Hex(w => w.Name(path)));

    [Theory]
    [InlineData(0UL, "00")]
    [InlineData(1UL, "01")]
    [InlineData(2UL, "0A02")]
    [InlineData(0xFFUL, "0AFF")]
    [InlineData(0x100UL, "0B0001")]
    [InlineData(0xFFFFUL, "0BFFFF")]
    [InlineData(0x1_0000UL, "0C00000100")]
    [InlineData(0xFFFF_FFFFUL, "0CFFFFFFFF")]
    [InlineData(0x1_0000_0000UL, "0E0000000001000000")]
    [InlineData(ulong.MaxValue, "FF")]
    public void Integers(ulong value, string expected) => Assert.Equal(expected, Hex(w => w.Integer(value)));

    [Theory]
    [InlineData(0, true, "01")]
    [InlineData(62, true, "3F")]
    [InlineData(63, true, "4104")]
    [InlineData(0xFFF - 2, true, "4FFF")]
    [InlineData(0xFFF - 1, true, "810001")]
    [InlineData(0xFFFFF - 3, true, "8FFFFF")]
    [InlineData(0xFFFFF - 2, true, "C1000001")]
    [InlineData(0xFFFFFFF - 4, true, "CFFFFFFF")]
    [InlineData(1, false, "01")]
    [InlineData(63, false, "3F")]
    [InlineData(64, false, "4004")]
    [InlineData(4095, false, "4FFF")]
    [InlineData(4096, false, "800001")]
    public void PackageLengths(int length, bool countsItself, string expected)
    {
        Span<byte> bytes = stackalloc byte[4];
        int used = AmlWriter.EncodePackageLength(length, bytes, countsItself);
        Assert.Equal(expected, Convert.ToHexString(bytes[..used]));
    }

    [Theory]
    [InlineData(0xFFFFFFF - 3)]
    [InlineData(int.MaxValue - 4)]
    public void Too_long_a_package_is_refused(int length) =>
        Assert.Throws<InvalidOperationException>(() => AmlWriter.EncodePackageLength(length, new byte[4], countsItself: true));

    [Fact]
    public void Data()
    {
        Assert.Equal("0D4142433100", Hex(w => w.String("ABC1")));
        Assert.Equal("110200", Hex(w => w.Buffer([])));
        Assert.Equal("110301AA", Hex(w => w.Buffer([0xAA])));
        Assert.Equal("11060A03010203", Hex(w => w.Buffer([1, 2, 3])));
        Assert.Equal("1205020A0501", Hex(w =>
        {
            using (w.Package(2))
                w.Integer(5).Integer(1);
        }));
        Assert.Equal("0C41D00A03", Hex(w => w.EisaId("PNP0A03")));
        Assert.Equal("0C41D00501", Hex(w => w.EisaId("PNP0501")));
        Assert.Equal("11130A105B4DDB33F71F1C4096577441C03DD766", Hex(w => w.Uuid(new Guid("33DB4D5B-1FF7-401C-9657-7441C03DD766"))));
    }

    [Fact]
    public void Wrong_data_is_refused()
    {
        Assert.Throws<ArgumentException>(() => Hex(w => w.String("\u00E4")));
        Assert.Throws<ArgumentException>(() => Hex(w => w.String("a\0b")));
        foreach (string id in (string[])["", "PNP050", "PNP05011", "pnp0501", "PN10501", "PNP05G1", "PNP05a1"])
            Assert.Throws<ArgumentException>(() => Hex(w => w.EisaId(id)));
        Assert.Throws<OverflowException>(() => Hex(w => w.Package(256).Dispose()));
        Assert.Throws<ArgumentOutOfRangeException>(() => Hex(w => w.Method("M", 8).Dispose()));
        Assert.Throws<ArgumentOutOfRangeException>(() => Hex(w => w.Arg(7)));
        Assert.Throws<ArgumentOutOfRangeException>(() => Hex(w => w.Local(-1)));
        Assert.Throws<ArgumentException>(() => Hex(w => w.DWordMemory(new AddressRange(0xFFFF_F000, 0x1001))));
        Assert.Throws<ArgumentOutOfRangeException>(() => Hex(w => w.IrqNoFlags(16)));
    }

    private static string Block(Func<AmlWriter, AmlBlock> open, Action<AmlWriter> content) => Hex(w =>
    {
        using (open(w))
            content(w);
    });

    [Fact]
    public void Named_objects()
    {
        Assert.Equal("5B820B" + "44455630" + "085F55494400", Block(w => w.Device("DEV0"), w => w.NameObject("_UID").Integer(0)));
        Assert.Equal("1006" + "5C5F53425F", Block(w => w.Scope("\\_SB"), _ => { }));
        Assert.Equal("1408" + "5F535441" + "0A" + "A400", Block(w => w.Method("_STA", 2), w => w.Return().Integer(0)));
        Assert.Equal("1408" + "5F535441" + "02" + "A400", Block(w => w.Method("_STA", 2, serialized: false), w => w.Return().Integer(0)));
        Assert.Equal("5B01" + "4D545830" + "01", Hex(w => w.Mutex("MTX0", 1)));
        Assert.Equal("5B80" + "52454730" + "01" + "0B0006" + "0A04", Hex(w => w.OperationRegion("REG0", AmlRegionSpace.SystemIO, 0x600, 4)));
        Assert.Equal("5B810D" + "52454730" + "01" + "464C443008" + "0004", Block(
            w => w.Field("REG0", AmlAccess.Byte, AmlUpdate.Preserve),
            w => w.FieldUnit("FLD0", 8).FieldGap(4)));
        Assert.Equal("5B860F" + "49445830" + "44415430" + "51" + "464C443008", Block(
            w => w.IndexField("IDX0", "DAT0", AmlAccess.Byte, AmlUpdate.WriteAsZeros, locked: true),
            w => w.FieldUnit("FLD0", 8)));
    }

    [Fact]
    public void Operators()
    {
        Assert.Equal("A004" + "9360" + "01", Block(w => w.If(), w => w.LEqual().Local(0).Integer(1)));
        Assert.Equal("A102" + "A5", Block(w => w.Else(), w => w.Break()));
        Assert.Equal("A205" + "9567" + "0A05", Block(w => w.While(), w => w.LLess().Local(7).Integer(5)));
        Assert.Equal("706860", Hex(w => w.Store().Arg(0).Local(0)));
        Assert.Equal("726E0160" + "74600100" + "77606161" + "7860616263",
            Hex(w => w.Add().Arg(6).Integer(1).Local(0).Subtract().Local(0).Integer(1).NoTarget()
                .Multiply().Local(0).Local(1).Local(1).Divide().Local(0).Local(1).Local(2).Local(3)));
        Assert.Equal("7560" + "7660" + "79600160" + "7A600160" + "7B606160" + "7D606160" + "7F606160" + "806061",
            Hex(w => w.Increment().Local(0).Decrement().Local(0).ShiftLeft().Local(0).Integer(1).Local(0).ShiftRight().Local(0).Integer(1).Local(0)
                .And().Local(0).Local(1).Local(0).Or().Local(0).Local(1).Local(0).Xor().Local(0).Local(1).Local(0).Not().Local(0).Local(1)));
        Assert.Equal("83" + "88680100" + "8768" + "906061" + "916061" + "9260" + "92936061" + "946061",
            Hex(w => w.DerefOf().Index().Arg(0).Integer(1).NoTarget().SizeOf().Arg(0).LAnd().Local(0).Local(1).LOr().Local(0).Local(1)
                .LNot().Local(0).LNotEqual().Local(0).Local(1).LGreater().Local(0).Local(1)));
        Assert.Equal("86" + "50574252" + "0A80", Hex(w => w.Notify().Name("PWBR").Integer(0x80)));
        Assert.Equal("5B23" + "4D545830" + "E803" + "5B27" + "4D545830", Hex(w => w.Acquire("MTX0", 1000).Release("MTX0")));
        Assert.Equal("8A6B0A0843444C5F" + "8F6B0043444C5F", Hex(w => w.CreateDWordField().Arg(3).Integer(8).Name("CDL").CreateQWordField().Arg(3).Integer(0).Name("CDL")));
    }

    [Fact]
    public void Resources()
    {
        Assert.Equal("110D0A0A" + "4701F803F8030108" + "7900", Block(w => w.ResourceTemplate(), w => w.IO(0x3F8, 8)));
        Assert.Equal("11050A02" + "7900", Block(w => w.ResourceTemplate(), _ => { }));
        Assert.Equal("221000" + "23000218" + "23000201", Hex(w =>
            w.IrqNoFlags(4).Irq(9, AmlInterrupt.Level | AmlInterrupt.ActiveLow | AmlInterrupt.Shared).Irq(9, AmlInterrupt.Edge)));
        Assert.Equal("890600" + "0301" + "05000000", Hex(w => w.Interrupt(5, AmlInterrupt.Edge)));
        Assert.Equal("890600" + "0D01" + "10000000", Hex(w => w.Interrupt(16, AmlInterrupt.Level | AmlInterrupt.ActiveLow | AmlInterrupt.Shared)));
        Assert.Equal("86090001" + "001000C0" + "00100000", Hex(w => w.Memory32Fixed(0xC000_1000, 0x1000)));
        Assert.Equal("880D00020C00" + "0000" + "0000" + "FF00" + "0000" + "0001", Hex(w => w.WordBusNumber(0, 255)));
        Assert.Equal("880D00010C03" + "0000" + "0000" + "F70C" + "0000" + "F80C", Hex(w => w.WordIO(0, 0xCF7)));
        Assert.Equal("871700010C03" + "00000000" + "000D0000" + "FFFF0000" + "00000000" + "00F30000", Hex(w => w.DWordIO(0xD00, 0xFFFF)));
        Assert.Equal("871700000C01" + "00000000" + "000000D0" + "FFFFFFDF" + "00000000" + "00000010",
            Hex(w => w.DWordMemory(new AddressRange(0xD000_0000, 0x1000_0000))));
        const string End = "FFFFFFFFFF000000", Half = "0000000080000000", None = "0000000000000000";
        AddressRange range = new(0x80_0000_0000, 0x80_0000_0000);
        Assert.Equal("8A2B00000C01" + None + Half + End + None + Half, Hex(w => w.QWordMemory(range)));
        Assert.Equal("8A2B00000C07" + None + Half + End + None + Half, Hex(w => w.QWordMemory(range, prefetchable: true)));
    }

    [Fact]
    public void Blocks_end_in_the_order_they_nest_and_only_once()
    {
        using AmlWriter writer = new();
        Assert.Throws<InvalidOperationException>(() =>
        {
            AmlBlock outer = writer.Scope("\\");
            AmlBlock inner = writer.Device("A");
            outer.Dispose();
            inner.Dispose();
        });
        using AmlWriter twice = new();
        Assert.Throws<InvalidOperationException>(() =>
        {
            AmlBlock block = twice.Device("A");
            block.Dispose();
            block.Dispose();
        });
    }
}
