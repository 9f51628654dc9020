using FsCheck;
using FsCheck.Fluent;
using Vmm.Core.Boot.Acpi;

namespace Vmm.Core.Tests.Boot.Acpi;

/// <summary>Random trees of blocks are written, and read back by a parser of a few lines that shares no code with the writer.</summary>
public sealed class AmlNestingTests
{
    private static readonly Config Fixed = Config.QuickThrowOnFailure.WithMaxTest(500).WithReplay(0x5eed_0003, 0x9e37_79b9_7f4a_7c15).WithEndSize(200);

    private enum Kind
    {
        Device,
        Scope,
        Method,
        Package,
        Buffer,
        If,
        Else,
        While,
        Integer,
        Text,
    }

    private sealed record Tree(Kind Kind, ulong Value, int Bytes, Tree[] Children)
    {
        public override string ToString() =>
            $"{Kind} {(Kind == Kind.Integer ? Value : (ulong)Bytes)} [{string.Join(", ", Children.Select(child => child.ToString()))}]";
    }

    private static readonly Gen<Tree> Leaves = Gen.OneOf(
        from bits in Gen.Choose(0, 64)
        from low in Gen.Choose(0, 3)
        select new Tree(Kind.Integer, (bits == 64 ? ulong.MaxValue : (1UL << bits) - 1) - (ulong)low, 0, []),
        // Lengths around the first two steps of the package length's encoding; the third has a test of its own.
        from bytes in Gen.Frequency((10, Gen.Choose(0, 70)), (1, Gen.Choose(4070, 4100)))
        from kind in Gen.Elements(Kind.Buffer, Kind.Text)
        select new Tree(kind, 0, bytes, []));

    private static Gen<Tree> Trees(int size) => size <= 0 ? Leaves : Gen.Frequency(
        (1, Leaves),
        (4, from kind in Gen.Elements(Kind.Device, Kind.Scope, Kind.Method, Kind.Package, Kind.If, Kind.Else, Kind.While)
            from count in Gen.Choose(0, 6)
            from children in Trees(size / 3).ArrayOf(count)
            select new Tree(kind, 0, 0, children)));

    [Fact]
    public void What_is_written_is_read_back() =>
        Check.One(Fixed, Prop.ForAll(Gen.Sized(Trees).ToArbitrary(), tree =>
        {
            using AmlWriter writer = new(1);
            Write(writer, tree);
            ReadOnlySpan<byte> rest = writer.Written;
            return Read(ref rest, tree) && rest.IsEmpty && writer.OpenBlocks == 0;
        }));

    [Fact]
    public void Blocks_around_a_mebibyte_are_read_back()
    {
        for (int bytes = (1 << 20) - 24; bytes < (1 << 20) + 4; bytes++)
        {
            Tree tree = new(Kind.Device, 0, 0, [new Tree(Kind.Buffer, 0, bytes, [])]);
            using AmlWriter writer = new();
            Write(writer, tree);
            ReadOnlySpan<byte> rest = writer.Written;
            Assert.True(Read(ref rest, tree) && rest.IsEmpty, $"{bytes} bytes");
        }
    }

    private static void Write(AmlWriter writer, Tree tree)
    {
        switch (tree.Kind)
        {
            case Kind.Integer:
                writer.Integer(tree.Value);
                return;
            case Kind.Text:
                writer.String(new string('x', tree.Bytes));
                return;
            case Kind.Buffer:
                writer.Buffer(new byte[tree.Bytes]);
                return;
        }
        using AmlBlock block = tree.Kind switch
        {
            Kind.Device => writer.Device("DEV0"),
            Kind.Scope => writer.Scope("\\_SB.DEV0"),
            Kind.Method => writer.Method("MTH0", 3),
            Kind.Package => writer.Package(tree.Children.Length),
            Kind.If => writer.If(),
            Kind.Else => writer.Else(),
            _ => writer.While(),
        };
        foreach (Tree child in tree.Children)
            Write(writer, child);
    }

    private static bool Read(ref ReadOnlySpan<byte> rest, Tree tree)
    {
        switch (tree.Kind)
        {
            case Kind.Integer:
                return ReadInteger(ref rest) == tree.Value;
            case Kind.Text:
                int end = rest.IndexOf((byte)0);
                bool same = rest[0] == 0x0D && end == tree.Bytes + 1 && !rest[1..end].ContainsAnyExcept((byte)'x');
                rest = rest[(end + 1)..];
                return same;
        }
        ReadOnlySpan<byte> opcode = tree.Kind switch
        {
            Kind.Device => [0x5B, 0x82],
            Kind.Scope => [0x10],
            Kind.Method => [0x14],
            Kind.Package => [0x12],
            Kind.Buffer => [0x11],
            Kind.If => [0xA0],
            Kind.Else => [0xA1],
            _ => [0xA2],
        };
        if (!rest.StartsWith(opcode))
            return false;
        rest = rest[opcode.Length..];

        int follows = rest[0] >> 6;
        int length = rest[0] & (follows == 0 ? 0x3F : 0x0F);
        for (int i = 1; i <= follows; i++)
            length |= rest[i] << (8 * i - 4);
        if (length < follows + 1 || length > rest.Length || (follows > 0 && length - follows < 64 - 1))
            return false;
        ReadOnlySpan<byte> content = rest[(follows + 1)..length];
        rest = rest[length..];

        if (tree.Kind == Kind.Buffer)
            return ReadInteger(ref content) == (ulong)tree.Bytes && content.Length == tree.Bytes;
        ReadOnlySpan<byte> before = tree.Kind switch
        {
            Kind.Device => "DEV0"u8,
            Kind.Scope => "\\\x2E_SB_DEV0"u8,
            Kind.Method => "MTH0\x0B"u8,
            Kind.Package => [(byte)tree.Children.Length],
            _ => [],
        };
        if (!content.StartsWith(before))
            return false;
        content = content[before.Length..];
        foreach (Tree child in tree.Children)
        {
            if (!Read(ref content, child))
                return false;
        }
        return content.IsEmpty;
    }

    private static ulong ReadInteger(ref ReadOnlySpan<byte> rest)
    {
        int bytes = rest[0] switch { 0x0A => 1, 0x0B => 2, 0x0C => 4, 0x0E => 8, _ => 0 };
        ulong value = bytes == 0 ? (rest[0] == 0xFF ? ulong.MaxValue : rest[0]) : 0;
        for (int i = 0; i < bytes; i++)
            value |= (ulong)rest[1 + i] << (8 * i);
        rest = rest[(1 + bytes)..];
        return value;
    }
}
