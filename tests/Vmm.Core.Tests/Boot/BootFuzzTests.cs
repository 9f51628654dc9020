using Vmm.Core.Boot;
using Xunit.Abstractions;

namespace Vmm.Core.Tests.Boot;

/// <summary>
/// Mutated and random kernels: only <see cref="VmmException"/> may come out, nothing is written outside guest RAM, and a lie in a
/// header makes the host allocate nothing large. Seeds are fixed; a failure names its case.
/// </summary>
public sealed class BootFuzzTests(ITestOutputHelper output)
{
    private const long AllocationLimit = 1 << 20;
    private static readonly ulong[] s_edges =
    [
        0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0xFFF, 0x1000, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0xFFFFF, 0x100000, 0x1000000, 0x7FFFFFFF,
        0x80000000, 0xFFFFFFFF, 0x100000000, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFF000, 0xFFFFFFFFFFFFFFFF,
    ];

    [Fact]
    public void Headers_of_60000_mutated_bzimages() =>
        Run(60_000, 1, SyntheticKernel.BzImage(), 0x1F1, 0x26C, ParseBzImage);

    [Fact]
    public void Headers_of_60000_mutated_elf_files() =>
        Run(60_000, 2, SmallElf(), 0, 64 + (4 * 56), ParseElf);

    [Fact]
    public void Notes_of_20000_mutated_elf_files()
    {
        byte[] elf = SmallElf();
        Run(20_000, 3, elf, elf.Length - 0x200, elf.Length, ParseElf);
    }

    [Fact]
    public void Random_files_20000()
    {
        var random = new Random(4);
        for (int i = 0; i < 20_000; i++)
        {
            byte[] file = new byte[random.Next(1, 2000)];
            random.NextBytes(file);
            if (random.Next(2) == 0 && file.Length > 0x210)
                SyntheticKernel.BzImage().AsSpan(0x1FE, 16).CopyTo(file.AsSpan(0x1FE));
            else if (file.Length > 8)
                SmallElf().AsSpan(0, 8).CopyTo(file);
            Case(i, () =>
            {
                ParseBzImage(file);
                ParseElf(file);
            });
        }
    }

    [Fact]
    public void Loading_6000_mutated_kernels_stays_inside_guest_ram()
    {
        using var ram = new TestRam((0, 0xA0000), (0x100000, 7 << 20), (1ul << 32, 1 << 20));
        byte[] gzip = SmallBzImage();
        byte[] elf = SmallElf();
        var initramfs = new MemoryKernelFile(new byte[5000], "initramfs test");
        int loadedCount = 0;
        var random = new Random(5);
        for (int i = 0; i < 6_000; i++)
        {
            bool isElf = i % 2 == 0;
            byte[] file = [.. isElf ? elf : gzip];
            Mutate(random, file, isElf ? 0 : 0x1F1, isElf ? 64 + (4 * 56) : 0x26C);
            if (random.Next(3) == 0)
                Mutate(random, file, isElf ? 0x200 : SyntheticKernel.KernelOffset + SyntheticKernel.PayloadOffset, file.Length);
            BootRequest request = ram.Request((BootProtocol)random.Next(5)) with { MemoryIsDirty = random.Next(2) == 0 };
            Case(i, () =>
            {
                try
                {
                    LoadedKernel loaded = KernelLoader.Load(ram.Memory, request, new MemoryKernelFile(file), initramfs);
                    Assert.True(ram.Memory.Contains(loaded.KernelStart, 1));
                    Assert.True(ram.Memory.Contains(loaded.Entry.InstructionPointer, 1));
                    Assert.True(loaded.InitramfsAddress >= loaded.KernelEnd || loaded.InitramfsAddress + 5000 <= loaded.KernelStart);
                    loadedCount++;
                }
                catch (VmmException)
                {
                    // What is asked for: a sentence.
                }
            });
            if (i % 100 == 0)
                ram.AssertGuards();
        }
        ram.AssertGuards();
        output.WriteLine($"{loadedCount} of 6000 were still loaded");
        // A fuzzer that breaks everything, or nothing, tests little.
        Assert.InRange(loadedCount, 300, 5700);
    }

    [SkippableFact]
    public void Real_kernels_with_mutated_headers()
    {
        Skip.If(RealKernelTests.Kernels.Count == 0, "No distribution kernel is at hand (VMM_TEST_KERNELS).");
        foreach (string path in RealKernelTests.Kernels)
            Run(10_000, 6, File.ReadAllBytes(path), 0x1F1, 0x26C, ParseBzImage, inPlace: true);
    }

    private static byte[] SmallElf() => SyntheticKernel.Elf(
    [
        new(0x200000, SyntheticKernel.Pattern(0x300, 11), 0x300, 0xFFFFFFFF81000000),
        new(0x204000, SyntheticKernel.Pattern(0x180, 13), 0x200, 0xFFFFFFFF81004000, 0x700),
        new(0x206000, SyntheticKernel.Pattern(0x100, 17), 0x800, 0, 0x900),
    ], 0x200040, SyntheticKernel.Notes(0x200050, true), firstOffset: 0x400);

    /// <summary>A gzip payload made here, for a kernel at 3 MiB, so that it fits in little memory.</summary>
    private static byte[] SmallBzImage()
    {
        byte[] elf = SyntheticKernel.Elf([new(0x400000, SyntheticKernel.Pattern(0x3000, 11), 0x4000)], 0x400000, SyntheticKernel.Notes(0x400010, true), 0x1000);
        using var packed = new MemoryStream();
        using (var gzip = new System.IO.Compression.GZipStream(packed, System.IO.Compression.CompressionLevel.Fastest))
            gzip.Write(elf);
        byte[] file = SyntheticKernel.BzImage(packed.ToArray(), 0x100000);
        BitConverter.TryWriteBytes(file.AsSpan(0x258), 0x400000ul);
        return file;
    }

    private static void ParseBzImage(byte[] bytes)
    {
        var file = new MemoryKernelFile(bytes);
        if (Throws(() => BzImageHeader.Parse(file)) is not { } header)
            return;
        // What a header vouches for holds.
        Assert.True(header.KernelOffset + header.KernelLength <= file.Length);
        Assert.True(header.PayloadOffset + header.PayloadLength <= file.Length);
        Assert.InRange(header.Raw.Length, 0x77, 0x9F);
        KernelPayload.Find(file, header, out _);
    }

    private static void ParseElf(byte[] bytes)
    {
        var file = new MemoryKernelFile(bytes);
        if (Throws(() => ElfImage.Parse(file)) is not { } image)
            return;
        ulong last = BootLayout.HighMemoryStart;
        foreach (ElfSegment segment in image.Segments)
        {
            Assert.True(segment.Address >= last && segment.End > segment.Address);
            Assert.True(segment.FileLength <= segment.MemoryLength && segment.Offset + segment.FileLength <= file.Length);
            last = segment.End;
        }
        Assert.True(image.Entry >= image.Start && image.Entry < image.End);
    }

    private static T? Throws<T>(Func<T> parse) where T : class
    {
        try
        {
            return parse();
        }
        catch (VmmException e)
        {
            Assert.DoesNotContain('\n', e.Message);
            return null;
        }
    }

    private static void Run(int count, int seed, byte[] original, int from, int to, Action<byte[]> parse, bool inPlace = false)
    {
        var random = new Random(seed);
        byte[] saved = original[from..to];
        byte[] file = inPlace ? original : [.. original];
        for (int i = 0; i < count; i++)
        {
            Mutate(random, file, from, to);
            Case(i, () => parse(file));
            saved.CopyTo(file, from);
        }
    }

    private static void Mutate(Random random, byte[] file, int from, int to)
    {
        int changes = random.Next(1, 4);
        for (int i = 0; i < changes; i++)
        {
            int at = random.Next(from, to);
            int width = Math.Min(1 << random.Next(4), to - at);
            ulong value = random.Next(3) switch
            {
                0 => (ulong)random.NextInt64(),
                1 => s_edges[random.Next(s_edges.Length)],
                _ => (ulong)(file[at] ^ (1 << random.Next(8))),
            };
            for (int j = 0; j < width; j++)
                file[at + j] = (byte)(value >> (8 * j));
        }
    }

    private static void Case(int number, Action action)
    {
        long before = GC.GetAllocatedBytesForCurrentThread();
        try
        {
            action();
        }
        catch (Exception e)
        {
            Assert.Fail($"Case {number}: {e}");
        }
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, AllocationLimit);
    }
}
