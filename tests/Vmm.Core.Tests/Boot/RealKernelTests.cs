using System.Diagnostics;
using Vmm.Core.Boot;
using Xunit.Abstractions;

namespace Vmm.Core.Tests.Boot;

/// <summary>
/// Distributions' kernels where there are any: below the guest images' cache, or below the directory that VMM_TEST_KERNELS names.
/// </summary>
public sealed class RealKernelTests(ITestOutputHelper output)
{
    internal static IReadOnlyList<string> Kernels { get; } = FindKernels();

    [SkippableFact]
    public void Unpacked_segments_equal_what_the_tool_unpacks()
    {
        Skip.If(Kernels.Count == 0, "No distribution kernel is at hand (VMM_TEST_KERNELS).");
        foreach (string path in Kernels)
        {
            byte[] packed = File.ReadAllBytes(path);
            var file = new MemoryKernelFile(packed, "kernel " + path);
            BzImageHeader header = BzImageHeader.Parse(file);
            KernelPayload? payload = KernelPayload.Find(file, header, out string reason);
            Assert.True(payload != null, reason);
            string tool = payload.Compression switch
            {
                PayloadCompression.Gzip => "gzip",
                PayloadCompression.Xz => "xz",
                PayloadCompression.Zstd => "zstd",
                _ => "lz4",
            };
            byte[] vmlinux = UnpackedLoaderTests.Pipe(tool, ["-dcq"], packed.AsSpan((int)payload.Offset, (int)payload.Length).ToArray());
            Assert.Equal(payload.UnpackedLength, (uint)vmlinux.Length);
            ElfImage image = ElfImage.Parse(new MemoryKernelFile(vmlinux));
            Assert.NotNull(image.PvhEntry);
            Assert.True(image.IsLinux);

            using TestRam ram = TestRam.OfMiB(128);
            long start = Stopwatch.GetTimestamp();
            LoadedKernel loaded = KernelLoader.Load(ram.Memory, ram.Request() with { KernelPath = path });
            output.WriteLine($"{loaded.Description}: {Stopwatch.GetElapsedTime(start).TotalMilliseconds:F1} ms");
            Assert.Equal(BootProtocol.Unpacked, loaded.Protocol);
            Assert.Equal(image.Entry, loaded.Entry.InstructionPointer);
            foreach (ElfSegment segment in image.Segments)
            {
                Assert.True(ram.Memory.TryGetSpan(segment.Address, (int)segment.FileLength, out Span<byte> span));
                Assert.True(vmlinux.AsSpan((int)segment.Offset, (int)segment.FileLength).SequenceEqual(span));
            }
            Assert.True(ram.IsZero(BootLayout.HighMemoryStart, image.Start - BootLayout.HighMemoryStart));
            Assert.True(ram.IsZero(image.End, (128ul << 20) - image.End));
            ram.AssertGuards();
        }
    }

    [SkippableFact]
    public void Each_protocol_loads_it_with_an_initramfs_as_high_as_allowed()
    {
        Skip.If(Kernels.Count == 0, "No distribution kernel is at hand (VMM_TEST_KERNELS).");
        foreach (string path in Kernels)
        {
            foreach (BootProtocol protocol in (BootProtocol[])[BootProtocol.BzImage, BootProtocol.Unpacked, BootProtocol.Pvh, BootProtocol.Linux64])
            {
                using TestRam ram = TestRam.OfMiB(128);
                var initramfs = new MemoryKernelFile(SyntheticKernel.Pattern(5_000_001, 3), "initramfs test");
                var kernel = new MemoryKernelFile(File.ReadAllBytes(path), "kernel " + path);
                LoadedKernel loaded = KernelLoader.Load(ram.Memory, ram.Request(protocol), kernel, initramfs);
                output.WriteLine(loaded.ToString());
                Assert.Equal(((128ul << 20) - 5_000_001) & ~0xFFFul, loaded.InitramfsAddress);
                Assert.Equal(SyntheticKernel.Pattern(5_000_001, 3), ram.Read(loaded.InitramfsAddress, 5_000_001));
                Assert.Equal(protocol == BootProtocol.Pvh ? BootEntryMode.Protected32 : BootEntryMode.Long64, loaded.Entry.Mode);
                ram.AssertGuards();
            }
        }
    }

    private static List<string> FindKernels()
    {
        if (Environment.GetEnvironmentVariable("VMM_TEST_KERNELS") is { } root)
        {
            var options = new EnumerationOptions { RecurseSubdirectories = true, IgnoreInaccessible = true };
            return Directory.Exists(root) ? [.. Directory.EnumerateFiles(root, "vmlinuz*", options).Order()] : [];
        }
        string home = Environment.GetFolderPath(Environment.SpecialFolder.UserProfile);
        string cache = Environment.GetEnvironmentVariable("VMM_CACHE") ?? Path.Combine(home, ".cache", "vmm");
        string[] distributions = ["debian-12", "debian-13"];
        return [.. distributions.Select(d => Path.Combine(cache, "guest-images", d, "vmlinuz")).Where(File.Exists)];
    }
}
