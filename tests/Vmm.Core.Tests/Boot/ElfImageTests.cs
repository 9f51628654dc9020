using System.Buffers.Binary;
using Vmm.Core.Boot;

namespace Vmm.Core.Tests.Boot;

public sealed class ElfImageTests
{
    [Fact]
    public void Segments_entry_and_notes_are_read()
    {
        ElfImage image = ElfImage.Parse(new MemoryKernelFile(SyntheticKernel.Vmlinux()));
        Assert.Equal(3, image.Segments.Count);
        Assert.Equal(SyntheticKernel.Preferred, image.Start);
        Assert.Equal(SyntheticKernel.Preferred + 0xE000, image.End);
        Assert.Equal(SyntheticKernel.Preferred + 0x40, image.Entry);
        Assert.Equal((uint)SyntheticKernel.Preferred + 0x850, image.PvhEntry);
        Assert.True(image.IsLinux);
        Assert.Null(ElfImage.Parse(new MemoryKernelFile(SyntheticKernel.Vmlinux(pvh: false))).PvhEntry);
    }

    [Fact]
    public void Virtual_entry_is_translated_to_its_physical_address()
    {
        byte[] file = SyntheticKernel.Elf([new(0x200000, new byte[0x100], 0x100, 0xFFFFFFFF80200000)], 0xFFFFFFFF80200010);
        Assert.Equal(0x200010ul, ElfImage.Parse(new MemoryKernelFile(file)).Entry);
    }

    public static TheoryData<int, int, ulong, string> BadFields => new()
    {
        { 0, 1, 0x7E, "not an ELF file" },
        { 4, 1, 1, "class 1" },
        { 5, 1, 2, "data encoding 2" },
        { 6, 1, 2, "unknown version" },
        { 16, 2, 1, "type 1" },
        { 18, 2, 183, "machine 183" },
        { 18, 2, 3, "machine 3" },
        { 20, 4, 0, "unknown version" },
        { 24, 8, 0x9000, "entry at 0x9000" },
        { 32, 8, 0xFFFFFFFFFFFFFFF0, "program headers at offset" },
        { 54, 2, 32, "program headers of 32 bytes" },
        { 56, 2, 0, "without program headers" },
        { 56, 2, 65, "65 program headers" },
        { 56, 2, 0xFFFF, "65535 program headers" },
        { 64, 4, 6, "entry at" },
        { 64 + 8, 8, 0x7FFFFFFFFFFFFFFF, "segment 0" },
        { 64 + 24, 8, 0x80000, "below 1 MiB" },
        { 64 + 24, 8, 0xFFFFFFFFFFFFF000, "past the end of all addresses" },
        { 64 + 32, 8, 0x3001, "more bytes in the file" },
        { 64 + 40, 8, 0x4001, "overlap at 0x1004000" },
        { 64 + 40, 8, 0x100, "more bytes in the file" },
        { 64 + (3 * 56) + 32, 8, 0xFFFFFFFF, "ELF notes" },
    };

    [Theory]
    [MemberData(nameof(BadFields))]
    public void Bad_field_is_refused_in_one_line(int offset, int width, ulong value, string expected)
    {
        byte[] file = SyntheticKernel.Vmlinux();
        Span<byte> bytes = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
        bytes[..width].CopyTo(file.AsSpan(offset));
        VmmException e = Assert.Throws<VmmException>(() => ElfImage.Parse(new MemoryKernelFile(file, "kernel /x/vmlinux")));
        Assert.Contains(expected, e.Message, StringComparison.Ordinal);
        Assert.Contains("kernel /x/vmlinux", e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', e.Message);
        Assert.Equal(VmmErrorKind.Configuration, e.Kind);
    }

    [Fact]
    public void Pvh_note_is_found_behind_others_and_refused_where_it_lies()
    {
        TestSegment[] segments = [new(0x200000, new byte[0x100], 0x100)];
        byte[] eight = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(eight, 0x200020);
        byte[] four = eight[..4];
        ElfImage Parse(byte[] notes) => ElfImage.Parse(new MemoryKernelFile(SyntheticKernel.Elf(segments, 0x200000, notes)));
        Assert.Equal(0x200020u, Parse(SyntheticKernel.Note("Xen", 18, four)).PvhEntry);
        Assert.Equal(0x200020u, Parse([.. SyntheticKernel.Note("abcdef", 18, [1]), .. SyntheticKernel.Note("Xen", 18, eight)]).PvhEntry);
        Assert.Null(Parse(SyntheticKernel.Note("xen", 18, eight)).PvhEntry);
        Assert.Null(Parse(SyntheticKernel.Note("Xen", 17, eight)).PvhEntry);
        Assert.Contains("of 2 bytes", Assert.Throws<VmmException>(() => Parse(SyntheticKernel.Note("Xen", 18, [0, 0]))).Message, StringComparison.Ordinal);
        BinaryPrimitives.WriteUInt64LittleEndian(eight, 0x200100);
        Assert.Contains("outside all of its segments", Assert.Throws<VmmException>(() => Parse(SyntheticKernel.Note("Xen", 18, eight))).Message, StringComparison.Ordinal);
        // A note that claims to be longer than the notes ends them.
        byte[] wild = SyntheticKernel.Note("Xen", 18, four);
        BinaryPrimitives.WriteUInt32LittleEndian(wild, 0xFFFFFFFF);
        BinaryPrimitives.WriteUInt32LittleEndian(wild.AsSpan(4), 0xFFFFFFFF);
        Assert.Null(Parse(wild).PvhEntry);
    }

    [Fact]
    public void Every_truncation_is_refused()
    {
        byte[] file = SyntheticKernel.Elf([new(0x200000, SyntheticKernel.Pattern(0x400, 1), 0x800)], 0x200000, SyntheticKernel.Notes(0x200000, true), 0x200);
        _ = ElfImage.Parse(new MemoryKernelFile(file));
        for (int length = 0; length < file.Length; length++)
            Assert.Throws<VmmException>(() => ElfImage.Parse(new MemoryKernelFile(file, length: length)));
    }
}
