using System.Text;
using Vmm.Core.Boot;

namespace Vmm.Core.Tests.Boot;

public sealed class KernelLoaderTests : IDisposable
{
    private const ulong MiB = 1 << 20;
    private readonly string _directory = Directory.CreateTempSubdirectory("vmm-boot-").FullName;

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    [Fact]
    public void Bzimage_from_a_file_with_its_zero_page()
    {
        byte[] kernel = SyntheticKernel.BzImage();
        byte[] initramfs = SyntheticKernel.Pattern(70_001, 5);
        using TestRam ram = TestRam.OfMiB(64);
        E820Entry[] map = [new(0, 0x9FC00, (E820Type)1), new(0x9FC00, 0x400, (E820Type)2), new(MiB, 63 * MiB, (E820Type)1)];
        BootRequest request = ram.Request(BootProtocol.BzImage, "console=ttyS0 ä") with
        {
            KernelPath = Write("vmlinuz", kernel),
            InitramfsPath = Write("initramfs", initramfs),
            AcpiRsdp = 0xE0000,
            E820 = map,
        };
        LoadedKernel loaded = KernelLoader.Load(ram.Memory, request);

        Assert.Equal(new BootEntry(BootEntryMode.Long64, SyntheticKernel.Preferred + 0x200, BootLayout.ZeroPage), loaded.Entry);
        Assert.Equal(BootProtocol.BzImage, loaded.Protocol);
        Assert.Equal(SyntheticKernel.Preferred, loaded.KernelStart);
        Assert.Equal(SyntheticKernel.Preferred + SyntheticKernel.InitSize, loaded.KernelEnd);
        Assert.Equal(kernel[SyntheticKernel.KernelOffset..], ram.Read(SyntheticKernel.Preferred, kernel.Length - SyntheticKernel.KernelOffset));
        ulong place = ((64 * MiB) - 70_001) & ~0xFFFul;
        Assert.Equal(place, loaded.InitramfsAddress);
        Assert.Equal(70_001ul, loaded.InitramfsLength);
        Assert.Equal(initramfs, ram.Read(place, initramfs.Length));

        byte[] commandLine = Encoding.UTF8.GetBytes("console=ttyS0 ä\0");
        Assert.Equal(commandLine, ram.Read(BootLayout.CommandLine, commandLine.Length));
        const ulong Page = BootLayout.ZeroPage;
        Assert.Equal(0xE0000ul, ram.Read<ulong>(Page + 0x70));
        Assert.Equal(0, ram.Read<byte>(Page + 0x1EF)); // the sentinel
        Assert.Equal(0xFFFF, ram.Read<ushort>(Page + 0x1FA));
        Assert.Equal(0xAA55, ram.Read<ushort>(Page + 0x1FE));
        Assert.Equal(0x53726448u, ram.Read<uint>(Page + 0x202));
        Assert.Equal(0x20F, ram.Read<ushort>(Page + 0x206));
        Assert.Equal(0xFF, ram.Read<byte>(Page + 0x210));
        Assert.Equal(1, ram.Read<byte>(Page + 0x211));
        Assert.Equal((uint)place, ram.Read<uint>(Page + 0x218));
        Assert.Equal(70_001u, ram.Read<uint>(Page + 0x21C));
        Assert.Equal((uint)BootLayout.CommandLine, ram.Read<uint>(Page + 0x228));
        Assert.True(ram.IsZero(Page + 0xC0, 12)); // ext_ramdisk_image, ext_ramdisk_size, ext_cmd_line_ptr
        Assert.Equal(3, ram.Read<byte>(Page + 0x1E8));
        for (int i = 0; i < map.Length; i++)
        {
            ulong entry = Page + 0x2D0 + ((ulong)i * 20);
            Assert.Equal(map[i].Start, ram.Read<ulong>(entry));
            Assert.Equal(map[i].Length, ram.Read<ulong>(entry + 8));
            Assert.Equal((uint)map[i].Type, ram.Read<uint>(entry + 16));
        }
        Assert.True(ram.IsZero(Page + 0x2D0 + 60, 0x1000 - 0x2D0 - 60));
        ram.AssertGuards();
    }

    [Fact]
    public void Elf_by_pvh_is_told_all_in_its_start_info()
    {
        using TestRam ram = TestRam.OfMiB(64);
        var initramfs = new MemoryKernelFile(SyntheticKernel.Pattern(5000, 5), "initramfs test");
        BootRequest request = ram.Request(commandLine: "quiet") with { AcpiRsdp = 0xE1230 };
        LoadedKernel loaded = KernelLoader.Load(ram.Memory, request, new MemoryKernelFile(SyntheticKernel.Vmlinux()), initramfs);
        Assert.Equal(BootProtocol.Pvh, loaded.Protocol);
        Assert.Equal(new BootEntry(BootEntryMode.Protected32, SyntheticKernel.Preferred + 0x850, BootLayout.HvmStartInfo), loaded.Entry);
        UnpackedLoaderTests.AssertVmlinux(ram, false);

        const ulong Info = BootLayout.HvmStartInfo;
        Assert.Equal(0x336EC578u, ram.Read<uint>(Info));
        Assert.Equal(1u, ram.Read<uint>(Info + 4));
        Assert.Equal(0u, ram.Read<uint>(Info + 8));
        Assert.Equal(1u, ram.Read<uint>(Info + 12));
        ulong module = ram.Read<ulong>(Info + 16);
        Assert.Equal(loaded.InitramfsAddress, ram.Read<ulong>(module));
        Assert.Equal(5000ul, ram.Read<ulong>(module + 8));
        Assert.Equal("quiet\0"u8.ToArray(), ram.Read(ram.Read<ulong>(Info + 24), 6));
        Assert.Equal(0xE1230ul, ram.Read<ulong>(Info + 32));
        ulong map = ram.Read<ulong>(Info + 40);
        Assert.Equal(1u, ram.Read<uint>(Info + 48));
        Assert.Equal(0ul, ram.Read<ulong>(map));
        Assert.Equal(64 * MiB, ram.Read<ulong>(map + 8));
        Assert.Equal(1u, ram.Read<uint>(map + 16));
    }

    [Fact]
    public void Pvh_without_initramfs_has_no_modules_and_room_for_all_memory_map_entries()
    {
        using TestRam ram = TestRam.OfMiB(32);
        E820Entry[] map = [.. Enumerable.Range(0, 128).Select(i => i == 0 ? ram.E820[0] : new E820Entry((1ul << 40) + ((ulong)i << 12), 4096, (E820Type)2))];
        BootRequest request = ram.Request() with { E820 = map };
        KernelLoader.Load(ram.Memory, request, new MemoryKernelFile(SyntheticKernel.Vmlinux()), null);
        Assert.Equal(0u, ram.Read<uint>(BootLayout.HvmStartInfo + 12));
        Assert.Equal(0ul, ram.Read<ulong>(BootLayout.HvmStartInfo + 16));
        ulong last = BootLayout.HvmMemoryMap + (127 * 24);
        Assert.True(last + 24 <= BootLayout.ZeroPage);
        Assert.Equal(map[127].Start, ram.Read<ulong>(last));
        Assert.Throws<ArgumentException>(() => KernelLoader.Load(
            ram.Memory, request with { E820 = [.. map, map[1]] }, new MemoryKernelFile(SyntheticKernel.Vmlinux()), null));
    }

    [Theory]
    [InlineData(false, BootProtocol.Auto)]
    [InlineData(true, BootProtocol.Linux64)]
    public void Elf_by_its_64_bit_entry_gets_a_made_header(bool pvh, BootProtocol protocol)
    {
        using TestRam ram = TestRam.OfMiB(32);
        ram.Fill(0xEE);
        BootRequest request = ram.Request(protocol) with { MemoryIsDirty = true };
        LoadedKernel loaded = KernelLoader.Load(ram.Memory, request, new MemoryKernelFile(SyntheticKernel.Vmlinux(pvh)), null);
        Assert.Equal(BootProtocol.Linux64, loaded.Protocol);
        Assert.Equal(new BootEntry(BootEntryMode.Long64, SyntheticKernel.Preferred + 0x40, BootLayout.ZeroPage), loaded.Entry);
        UnpackedLoaderTests.AssertVmlinux(ram, true);
        Assert.Equal(0xAA55, ram.Read<ushort>(BootLayout.ZeroPage + 0x1FE));
        Assert.Equal(0x53726448u, ram.Read<uint>(BootLayout.ZeroPage + 0x202));
        Assert.Equal(0xFF, ram.Read<byte>(BootLayout.ZeroPage + 0x210));
        Assert.Equal(1, ram.Read<byte>(BootLayout.ZeroPage + 0x211));
        Assert.Equal(0ul, ram.Read<ulong>(BootLayout.ZeroPage + 0x218));
    }

    [Fact]
    public void Bss_of_fresh_memory_is_not_touched()
    {
        // Seen from outside: whoever promises zeroed memory and does not have it, keeps what was there.
        using TestRam ram = TestRam.OfMiB(32);
        ram.Fill(0xEE);
        KernelLoader.Load(ram.Memory, ram.Request(), new MemoryKernelFile(SyntheticKernel.Vmlinux()), null);
        Assert.Equal(0xEE, ram.Read<byte>(SyntheticKernel.Preferred + 0x7000));
    }

    [Fact]
    public void Relocatable_kernel_goes_low_where_its_preferred_address_is_not_ram()
    {
        using TestRam ram = TestRam.OfMiB(16);
        LoadedKernel loaded = KernelLoader.Load(ram.Memory, ram.Request(BootProtocol.BzImage), new MemoryKernelFile(SyntheticKernel.BzImage()), null);
        Assert.Equal(0x200000ul, loaded.KernelStart);
        byte[] fixedKernel = SyntheticKernel.BzImage();
        fixedKernel[0x234] = 0;
        VmmException e = Assert.Throws<VmmException>(() => KernelLoader.Load(ram.Memory, ram.Request(BootProtocol.BzImage), new MemoryKernelFile(fixedKernel), null));
        Assert.Contains("at least 20 MiB (--memory size=20M)", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Initramfs_keeps_to_ram_of_the_map_and_out_of_the_kernel()
    {
        // The kernel at 16-20 MiB; ACPI tables in the last MiB of 24.
        using TestRam ram = TestRam.OfMiB(24);
        E820Entry[] map = [new(0, 23 * MiB, (E820Type)1), new(23 * MiB, MiB, (E820Type)3)];
        ulong Place(int length) => KernelLoader.Load(
            ram.Memory, ram.Request(BootProtocol.BzImage) with { E820 = map }, new MemoryKernelFile(SyntheticKernel.BzImage()),
            new MemoryKernelFile(new byte[length], "initramfs test")).InitramfsAddress;
        Assert.Equal(20 * MiB, Place(3 << 20));
        Assert.Equal((16 * MiB) - (3 * MiB) - 4096, Place((3 << 20) + 1));
        VmmException e = Assert.Throws<VmmException>(() => Place(16 << 20));
        Assert.Contains("does not fit", e.Message, StringComparison.Ordinal);
        Assert.Contains("at least 36 MiB (--memory size=36M)", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Initramfs_goes_above_4_GiB_only_where_the_kernel_says_so()
    {
        // Below, the kernel at 16-20 MiB leaves 15 MiB: one byte too little.
        const ulong High = 1ul << 32;
        using var ram = new TestRam((0, 20 * MiB), (High, 16 * MiB));
        var initramfs = new MemoryKernelFile(new byte[(15 << 20) + 1], "initramfs test");
        LoadedKernel loaded = KernelLoader.Load(ram.Memory, ram.Request(BootProtocol.BzImage), new MemoryKernelFile(SyntheticKernel.BzImage()), initramfs);
        Assert.Equal(High + MiB - 4096, loaded.InitramfsAddress);
        Assert.Equal((uint)MiB - 4096, ram.Read<uint>(BootLayout.ZeroPage + 0x218));
        Assert.Equal(1u, ram.Read<uint>(BootLayout.ZeroPage + 0xC0));
        var old = new MemoryKernelFile(SyntheticKernel.BzImage(xloadflags: 1));
        Assert.Throws<VmmException>(() => KernelLoader.Load(ram.Memory, ram.Request(BootProtocol.BzImage), old, initramfs));
        Assert.Throws<VmmException>(() => KernelLoader.Load(ram.Memory, ram.Request(BootProtocol.Pvh), new MemoryKernelFile(SyntheticKernel.Vmlinux()), initramfs));
    }

    [Fact]
    public void Segments_outside_ram_are_refused_with_the_memory_needed()
    {
        using TestRam ram = TestRam.OfMiB(8);
        VmmException e = Assert.Throws<VmmException>(() => KernelLoader.Load(ram.Memory, ram.Request(), new MemoryKernelFile(SyntheticKernel.Vmlinux()), null));
        Assert.Contains("the guest has 8 MiB; give it at least 17 MiB", e.Message, StringComparison.Ordinal);
        byte[] far = SyntheticKernel.Elf([new(1ul << 40, new byte[0x100], 0x100)], 1ul << 40);
        e = Assert.Throws<VmmException>(() => KernelLoader.Load(ram.Memory, ram.Request(), new MemoryKernelFile(far), null));
        Assert.Contains("lower addresses", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Command_line_is_held_to_the_kernels_limit()
    {
        using TestRam ram = TestRam.OfMiB(32);
        void Load(byte[] kernel, int length) =>
            KernelLoader.Load(ram.Memory, ram.Request(commandLine: new string('x', length)), new MemoryKernelFile(kernel), null);
        byte[] small = SyntheticKernel.BzImage();
        small[0x238] = 255;
        small[0x239] = 0;
        byte[] huge = SyntheticKernel.BzImage();
        huge.AsSpan(0x238, 4).Fill(0xFF);
        foreach ((byte[] kernel, int limit) in new[]
        {
            (small, 255), (SyntheticKernel.BzImage(), 2047), (huge, 65535), (SyntheticKernel.Vmlinux(), 2047),
            (SyntheticKernel.Vmlinux(pvh: false), 2047), (SyntheticKernel.Vmlinux(linux: false), 65535),
        })
        {
            Load(kernel, limit);
            Assert.Equal(0, ram.Read<byte>(BootLayout.CommandLine + (ulong)limit));
            VmmException e = Assert.Throws<VmmException>(() => Load(kernel, limit + 1));
            Assert.Contains($"has {limit + 1} bytes", e.Message, StringComparison.Ordinal);
            Assert.Contains($"at most {limit}", e.Message, StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData("a\0b", "NUL")]
    [InlineData("a\nb", "line break")]
    [InlineData("a\rb", "line break")]
    public void Command_line_with_control_characters_is_refused(string commandLine, string expected)
    {
        using TestRam ram = TestRam.OfMiB(32);
        VmmException e = Assert.Throws<VmmException>(() =>
            KernelLoader.Load(ram.Memory, ram.Request(commandLine: commandLine), new MemoryKernelFile(SyntheticKernel.BzImage()), null));
        Assert.Contains(expected, e.Message, StringComparison.Ordinal);
    }

    public static TheoryData<string, string> BadPaths => new()
    {
        { "missing", "No such file" },
        { "directory", "is a directory" },
        { "empty", "is empty" },
        { "device", "not a regular file" },
        { "fifo", "not a regular file" },
        { "", "path of the kernel is empty" },
        { "unreadable", "Cannot" },
        { "dangling", "No such file" },
    };

    [Theory]
    [MemberData(nameof(BadPaths))]
    public void Bad_path_is_one_clear_line(string kind, string expected)
    {
        string path = kind switch
        {
            "directory" => _directory,
            "empty" => Write("empty", []),
            "device" => "/dev/zero",
            "fifo" => Fifo(),
            "" => "",
            // Regular, and an error to read even for root.
            "unreadable" => "/proc/self/mem",
            "dangling" => File.CreateSymbolicLink(Path.Combine(_directory, "link"), "nowhere").FullName,
            _ => Path.Combine(_directory, "missing"),
        };
        using TestRam ram = TestRam.OfMiB(32);
        VmmException e = Assert.Throws<VmmException>(() => KernelLoader.Load(ram.Memory, ram.Request() with { KernelPath = path }));
        if (kind != "unreadable")
            Assert.Contains(expected, e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', e.Message);
        Assert.Equal(VmmErrorKind.Configuration, e.Kind);

        if (kind.Length == 0)
            return;
        string kernel = Write("vmlinuz", SyntheticKernel.BzImage());
        e = Assert.Throws<VmmException>(() => KernelLoader.Load(ram.Memory, ram.Request() with { KernelPath = kernel, InitramfsPath = path }));
        Assert.Contains("initramfs", e.Message, StringComparison.Ordinal);
        if (kind != "unreadable")
            Assert.Contains(expected, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Oversized_initramfs_says_how_much_memory_it_needs()
    {
        string path = Path.Combine(_directory, "sparse");
        using (FileStream stream = File.Create(path))
            stream.SetLength(1L << 30);
        using TestRam ram = TestRam.OfMiB(32);
        BootRequest request = ram.Request(BootProtocol.BzImage) with { KernelPath = Write("vmlinuz", SyntheticKernel.BzImage()), InitramfsPath = path };
        VmmException e = Assert.Throws<VmmException>(() => KernelLoader.Load(ram.Memory, request));
        Assert.Contains("1073741824 bytes", e.Message, StringComparison.Ordinal);
        Assert.Contains("--memory size=1044M", e.Message, StringComparison.Ordinal);
        using (FileStream stream = File.OpenWrite(path))
            stream.SetLength(1L << 43);
        byte[] old = SyntheticKernel.BzImage(xloadflags: 1);
        e = Assert.Throws<VmmException>(() => KernelLoader.Load(ram.Memory, request with { KernelPath = Write("old", old) }));
        Assert.Contains("make it smaller", e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(new byte[] { 0x1F, 0x8B, 8, 0 }, "gzip file")]
    [InlineData(new byte[] { 0x28, 0xB5, 0x2F, 0xFD }, "zstd file")]
    [InlineData(new byte[] { (byte)'M', (byte)'Z', 0, 0 }, "EFI program")]
    [InlineData(new byte[] { 1 }, "begins with 01")]
    public void What_is_no_kernel_is_named(byte[] head, string expected)
    {
        using TestRam ram = TestRam.OfMiB(32);
        byte[] file = head.Length == 1 ? head : [.. head, .. new byte[4096]];
        foreach (BootProtocol protocol in Enum.GetValues<BootProtocol>())
        {
            VmmException e = Assert.Throws<VmmException>(() => KernelLoader.Load(ram.Memory, ram.Request(protocol), new MemoryKernelFile(file), null));
            Assert.Contains(expected, e.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Protocols_that_do_not_match_the_file_are_refused()
    {
        using TestRam ram = TestRam.OfMiB(32);
        VmmException e = Assert.Throws<VmmException>(() => KernelLoader.Load(ram.Memory, ram.Request(BootProtocol.BzImage), new MemoryKernelFile(SyntheticKernel.Vmlinux()), null));
        Assert.Contains("ELF file and not a bzImage", e.Message, StringComparison.Ordinal);
        e = Assert.Throws<VmmException>(() => KernelLoader.Load(ram.Memory, ram.Request(BootProtocol.Pvh), new MemoryKernelFile(SyntheticKernel.Vmlinux(pvh: false)), null));
        Assert.Contains("no PVH entry", e.Message, StringComparison.Ordinal);
    }

    private string Write(string name, byte[] content)
    {
        string path = Path.Combine(_directory, name);
        File.WriteAllBytes(path, content);
        return path;
    }

    private string Fifo()
    {
        string path = Path.Combine(_directory, "fifo");
        if (!File.Exists(path))
            _ = UnpackedLoaderTests.Pipe("mkfifo", [path], []);
        return path;
    }
}
