using System.Buffers.Binary;
using Vmm.Core.Boot;

namespace Vmm.Core.Tests.Boot;

public sealed class BzImageHeaderTests
{
    [Fact]
    public void Good_header_is_read_field_by_field()
    {
        byte[] file = SyntheticKernel.BzImage();
        BzImageHeader header = BzImageHeader.Parse(new MemoryKernelFile(file));
        Assert.Equal((ulong)SyntheticKernel.KernelOffset, header.KernelOffset);
        Assert.Equal((ulong)(file.Length - SyntheticKernel.KernelOffset), header.KernelLength);
        Assert.Equal(0x20F, header.Version);
        Assert.Equal(SyntheticKernel.Preferred, header.PreferredAddress);
        Assert.Equal(SyntheticKernel.InitSize, header.InitSize);
        Assert.Equal(0x200000ul, header.Alignment);
        Assert.True(header.Relocatable);
        Assert.True(header.AboveFourGiB);
        Assert.Equal(2047u, header.CommandLineSize);
        Assert.Equal(0x7FFFFFFFu, header.InitramfsAddressMax);
        Assert.Equal((ulong)(SyntheticKernel.KernelOffset + SyntheticKernel.PayloadOffset), header.PayloadOffset);
        Assert.Equal(5000ul, header.PayloadLength);
        // From 0x1f1 to the end that the jump names (0x202 + 0x6a).
        Assert.Equal(file[0x1F1..0x26C], header.Raw.ToArray());
    }

    [Fact]
    public void Setup_sects_of_0_means_4()
    {
        byte[] file = [.. SyntheticKernel.BzImage(), .. new byte[1024]];
        file[0x1F1] = 0;
        Assert.Equal(5 * 512ul, BzImageHeader.Parse(new MemoryKernelFile(file)).KernelOffset);
    }

    [Fact]
    public void A_last_paragraph_may_be_partial_but_not_missing()
    {
        byte[] file = SyntheticKernel.BzImage();
        Assert.Equal((ulong)(file.Length - 15 - SyntheticKernel.KernelOffset), BzImageHeader.Parse(new MemoryKernelFile(file, length: file.Length - 15)).KernelLength);
        VmmException e = Assert.Throws<VmmException>(() => BzImageHeader.Parse(new MemoryKernelFile(file, length: file.Length - 16)));
        Assert.Contains("truncated", e.Message, StringComparison.Ordinal);
        Assert.Contains("syssize", e.Message, StringComparison.Ordinal);
    }

    public static TheoryData<int, int, ulong, string> BadFields => new()
    {
        { 0x1FE, 2, 0xAA54, "boot_flag" },
        { 0x202, 4, 0x53726449, "header is 0x53726449" },
        { 0x206, 2, 0x20B, "version is 0x20b" },
        { 0x201, 1, 0x65, "jump" },
        { 0x201, 1, 0x8F, "jump" },
        { 0x211, 1, 0, "loadflags" },
        { 0x236, 2, 2, "xloadflags" },
        { 0x1F1, 1, 200, "setup_sects" },
        { 0x1F4, 4, 0x20, "syssize" },
        { 0x1F4, 4, 0xFFFFFFFF, "syssize" },
        { 0x260, 4, 100, "init_size" },
        { 0x230, 4, 0x300000, "kernel_alignment" },
        { 0x230, 4, 0x800, "kernel_alignment" },
        { 0x258, 8, 0x80000, "pref_address" },
        { 0x258, 8, 0x1100000, "pref_address" },
        { 0x258, 8, 0xFFFFFFFFFFE00000, "pref_address" },
        { 0x238, 4, 0, "cmdline_size" },
        { 0x22C, 4, 0xFFFFF, "initrd_addr_max" },
        { 0x248, 4, 0x7FFFFFFF, "payload_offset" },
        { 0x24C, 4, 0x7FFFFFFF, "payload_length" },
    };

    [Theory]
    [MemberData(nameof(BadFields))]
    public void Bad_field_is_named_with_the_file_in_one_line(int offset, int width, ulong value, string expected)
    {
        byte[] file = SyntheticKernel.BzImage();
        Span<byte> bytes = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
        bytes[..width].CopyTo(file.AsSpan(offset));
        VmmException e = Assert.Throws<VmmException>(() => BzImageHeader.Parse(new MemoryKernelFile(file, "kernel /x/vmlinuz")));
        Assert.Contains(expected, e.Message, StringComparison.Ordinal);
        Assert.Contains("kernel /x/vmlinuz", e.Message, StringComparison.Ordinal);
        Assert.EndsWith(".", e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', e.Message);
        Assert.Equal(VmmErrorKind.Configuration, e.Kind);
    }
}
