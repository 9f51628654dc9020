using System.Buffers.Binary;
using System.Diagnostics;
using Vmm.Core.Boot;

namespace Vmm.Core.Tests.Boot;

/// <summary>Payloads packed by the usual tools, unpacked by the loader, compared byte by byte.</summary>
public sealed class UnpackedLoaderTests
{
    public static TheoryData<string> Formats => ["gzip", "xz", "zstd", "lz4"];

    [SkippableTheory]
    [MemberData(nameof(Formats))]
    public void Payload_is_unpacked_as_the_tool_unpacks_it(string format)
    {
        byte[] vmlinux = SyntheticKernel.Vmlinux();
        var file = new MemoryKernelFile(SyntheticKernel.BzImage(Pack(format, vmlinux)));
        BzImageHeader header = BzImageHeader.Parse(file);
        KernelPayload? payload = KernelPayload.Find(file, header, out string reason);
        Assert.True(payload != null, reason);
        Assert.Equal((uint)vmlinux.Length, payload.UnpackedLength);
        byte[] output = new byte[vmlinux.Length + 64];
        output.AsSpan(vmlinux.Length).Fill(0xC5);
        unsafe
        {
            fixed (byte* p = output)
                Assert.Null(payload.Unpack(file, p));
        }
        Assert.True(output.AsSpan(0, vmlinux.Length).SequenceEqual(vmlinux));
        Assert.Equal(-1, output.AsSpan(vmlinux.Length).IndexOfAnyExcept((byte)0xC5));
    }

    [SkippableTheory]
    [InlineData("gzip", false)]
    [InlineData("xz", false)]
    [InlineData("zstd", false)]
    [InlineData("lz4", false)]
    [InlineData("lz4", true)]
    public void Unpacked_kernel_is_in_place_and_all_else_is_zero(string format, bool dirty)
    {
        byte[] vmlinux = SyntheticKernel.Vmlinux();
        using TestRam ram = TestRam.OfMiB(32);
        if (dirty)
            ram.Fill(0xEE);
        BootRequest request = ram.Request() with { MemoryIsDirty = dirty };
        LoadedKernel loaded = KernelLoader.Load(ram.Memory, request, new MemoryKernelFile(SyntheticKernel.BzImage(Pack(format, vmlinux))), null);

        Assert.Equal(BootProtocol.Unpacked, loaded.Protocol);
        Assert.Null(loaded.FallbackReason);
        Assert.Equal(new BootEntry(BootEntryMode.Long64, SyntheticKernel.Preferred + 0x40, BootLayout.ZeroPage), loaded.Entry);
        AssertVmlinux(ram, dirty);
        // The zero page carries the bzImage's own header.
        Assert.Equal(0x20F, ram.Read<ushort>(BootLayout.ZeroPage + 0x206));
        ram.AssertGuards();
    }

    [SkippableFact]
    public void Segments_that_cannot_be_moved_in_place_are_copied()
    {
        // The second segment's bytes lie where the first one belongs.
        ulong at = SyntheticKernel.Preferred;
        byte[] vmlinux = SyntheticKernel.Elf(
        [
            new(at, SyntheticKernel.Pattern(0x3000, 11), 0x3000, null, 0x208000),
            new(at + 0x10000, SyntheticKernel.Pattern(0x2000, 13), 0x2000, null, 0x200000),
        ], at);
        using TestRam ram = TestRam.OfMiB(32);
        byte[] bzImage = SyntheticKernel.BzImage(Pack("gzip", vmlinux));
        LoadedKernel loaded = KernelLoader.Load(ram.Memory, ram.Request(BootProtocol.Unpacked), new MemoryKernelFile(bzImage), null);
        Assert.Equal(BootProtocol.Unpacked, loaded.Protocol);
        Assert.Equal(SyntheticKernel.Pattern(0x3000, 11), ram.Read(at, 0x3000));
        Assert.Equal(SyntheticKernel.Pattern(0x2000, 13), ram.Read(at + 0x10000, 0x2000));
        Assert.True(ram.IsZero(at + 0x3000, 0xD000));
        Assert.True(ram.IsZero(BootLayout.HighMemoryStart, at - BootLayout.HighMemoryStart));
        Assert.True(ram.IsZero(at + 0x12000, 0x100000));
    }

    [SkippableFact]
    public void Pvh_of_a_bzimage_enters_the_unpacked_kernel_by_its_note()
    {
        using TestRam ram = TestRam.OfMiB(32);
        byte[] bzImage = SyntheticKernel.BzImage(Pack("gzip", SyntheticKernel.Vmlinux()));
        LoadedKernel loaded = KernelLoader.Load(ram.Memory, ram.Request(BootProtocol.Pvh), new MemoryKernelFile(bzImage), null);
        Assert.Equal(BootProtocol.Pvh, loaded.Protocol);
        Assert.Equal(new BootEntry(BootEntryMode.Protected32, SyntheticKernel.Preferred + 0x850, BootLayout.HvmStartInfo), loaded.Entry);
        AssertVmlinux(ram, false);

        byte[] without = SyntheticKernel.BzImage(Pack("gzip", SyntheticKernel.Vmlinux(pvh: false)));
        VmmException e = Assert.Throws<VmmException>(() => KernelLoader.Load(ram.Memory, ram.Request(BootProtocol.Pvh), new MemoryKernelFile(without), null));
        Assert.Contains("no PVH entry", e.Message, StringComparison.Ordinal);
    }

    public static TheoryData<string, string> Broken => new()
    {
        { "bzip2", "packed by bzip2" },
        { "lzma", "packed by lzma" },
        { "lzo", "packed by lzo" },
        { "unknown", "unknown way" },
        { "tiny", "names no payload" },
        { "size0", "claims to unpack to 0 bytes" },
        { "sizehuge", "claims to unpack to 4294967295 bytes" },
        { "sizelow", "more than its size says" },
        { "sizehigh", "gzip data are corrupt" },
        { "corrupt", "gzip data are corrupt" },
        { "notelf", "not an ELF file" },
        { "lz4block", "lz4 data are corrupt" },
        { "lz4short", "unpacks to" },
        { "zstd", "zstd data are corrupt" },
        { "xz", "xz data are corrupt" },
        { "low", "below its pref_address" },
    };

    [SkippableTheory]
    [MemberData(nameof(Broken))]
    public void What_cannot_be_unpacked_falls_back_with_the_reason_or_fails_when_asked_for(string kind, string expected)
    {
        byte[] bzImage = SyntheticKernel.BzImage(BrokenPayload(kind));
        using TestRam ram = TestRam.OfMiB(32);
        var file = new MemoryKernelFile(bzImage);
        LoadedKernel loaded = KernelLoader.Load(ram.Memory, ram.Request(), file, null);
        Assert.Equal(BootProtocol.BzImage, loaded.Protocol);
        Assert.Contains(expected, loaded.FallbackReason, StringComparison.Ordinal);
        Assert.EndsWith(".", loaded.FallbackReason, StringComparison.Ordinal);
        // The packed kernel is there and nothing is left of the attempt.
        int length = bzImage.Length - SyntheticKernel.KernelOffset;
        Assert.True(bzImage.AsSpan(SyntheticKernel.KernelOffset).SequenceEqual(ram.Read(SyntheticKernel.Preferred, length)));
        Assert.True(ram.IsZero(BootLayout.HighMemoryStart, SyntheticKernel.Preferred - BootLayout.HighMemoryStart));
        Assert.True(ram.IsZero(SyntheticKernel.Preferred + (ulong)length, (32ul << 20) - SyntheticKernel.Preferred - (ulong)length));

        VmmException e = Assert.Throws<VmmException>(() => KernelLoader.Load(ram.Memory, ram.Request(BootProtocol.Unpacked), file, null));
        Assert.Contains(expected, e.Message, StringComparison.Ordinal);
        Assert.Equal(VmmErrorKind.Configuration, e.Kind);
        Assert.DoesNotContain('\n', e.Message);
        ram.AssertGuards();
    }

    internal static void AssertVmlinux(TestRam ram, bool dirty)
    {
        ulong at = SyntheticKernel.Preferred;
        Assert.Equal(SyntheticKernel.Pattern(0x3000, 11), ram.Read(at, 0x3000));
        Assert.Equal(SyntheticKernel.Pattern(0x1800, 13), ram.Read(at + 0x4000, 0x1800));
        Assert.Equal(SyntheticKernel.Pattern(0x1000, 17), ram.Read(at + 0x6000, 0x1000));
        // BSS of the second and the third segment.
        Assert.True(ram.IsZero(at + 0x5800, 0x800));
        Assert.True(ram.IsZero(at + 0x7000, 0x7000));
        if (dirty)
            return;
        Assert.True(ram.IsZero(at + 0x3000, 0x1000));
        Assert.True(ram.IsZero(BootLayout.HighMemoryStart, at - BootLayout.HighMemoryStart));
        Assert.True(ram.IsZero(at + 0xE000, 0x100000));
    }

    /// <summary>Packs as the kernel's build does: by the tool, then the size where the format lacks it.</summary>
    internal static byte[] Pack(string format, byte[] content)
    {
        string[] arguments = format switch
        {
            "gzip" => ["-n", "-9"],
            "xz" => ["--check=crc32", "--x86", "--lzma2=dict=32MiB"],
            // The kernel's build takes -22 --ultra; what matters of that here is its window of 128 MiB.
            "zstd" => ["-3", "--long=27", "-q"],
            _ => ["-l", "-9", "-q", "-c"],
        };
        byte[] packed = Pipe(format, arguments, content);
        if (format == "gzip")
            return packed;
        byte[] size = new byte[4];
        BinaryPrimitives.WriteInt32LittleEndian(size, content.Length);
        return [.. packed, .. size];
    }

    internal static byte[] Pipe(string tool, string[] arguments, byte[] input)
    {
        var start = new ProcessStartInfo(tool) { RedirectStandardInput = true, RedirectStandardOutput = true };
        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        Process? process = null;
        try
        {
            process = Process.Start(start);
        }
        catch (System.ComponentModel.Win32Exception)
        {
        }
        Skip.If(process == null, $"{tool} is not installed.");
        using (process)
        {
            using var output = new MemoryStream();
            Task writer = Task.Run(() =>
            {
                process!.StandardInput.BaseStream.Write(input);
                process.StandardInput.Close();
            });
            process!.StandardOutput.BaseStream.CopyTo(output);
            writer.GetAwaiter().GetResult();
            process.WaitForExit();
            Assert.Equal(0, process.ExitCode);
            return output.ToArray();
        }
    }

    private static byte[] BrokenPayload(string kind)
    {
        byte[] good = Pack("gzip", SyntheticKernel.Vmlinux());
        byte[] WithSize(byte[] packed, uint size)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(packed.AsSpan(packed.Length - 4), size);
            return packed;
        }
        byte[] Corrupt(byte[] packed)
        {
            for (int i = packed.Length / 2; i < (packed.Length / 2) + 40; i++)
                packed[i] ^= 0x5A;
            return packed;
        }
        return kind switch
        {
            "bzip2" => [.. "BZh91AY"u8, .. SyntheticKernel.Pattern(100, 1)],
            "lzma" => [0x5D, 0, 0, 0, 4, 0, .. SyntheticKernel.Pattern(100, 1)],
            "lzo" => [0x89, .. "LZO\0"u8, .. SyntheticKernel.Pattern(100, 1)],
            "unknown" => SyntheticKernel.Pattern(100, 1),
            "tiny" => [0x1F, 0x8B],
            "size0" => WithSize(good, 0),
            "sizehuge" => WithSize(good, uint.MaxValue),
            "sizelow" => WithSize(Pack("gzip", SyntheticKernel.Vmlinux()), 1000),
            "sizehigh" => WithSize(good, 8 << 20),
            "corrupt" => Corrupt(good),
            "notelf" => Pack("gzip", SyntheticKernel.Pattern(10000, 1)),
            "lz4block" => Corrupt(Pack("lz4", SyntheticKernel.Vmlinux())),
            "lz4short" => WithSize(Pack("lz4", SyntheticKernel.Vmlinux()), (uint)SyntheticKernel.Vmlinux().Length + 1),
            "zstd" => Corrupt(Pack("zstd", SyntheticKernel.Vmlinux())),
            "xz" => Corrupt(Pack("xz", SyntheticKernel.Vmlinux())),
            "low" => Pack("gzip", SyntheticKernel.Elf([new(0x200000, SyntheticKernel.Pattern(0x1000, 1), 0x1000)], 0x200000)),
            _ => throw new ArgumentOutOfRangeException(nameof(kind)),
        };
    }
}
