using System.Buffers.Binary;
using Iced.Intel;
using Vmm.Tests.Payloads;

namespace Vmm.Cli.Tests.EndToEnd;

/// <summary>Kernels and initramfs that are none.</summary>
public sealed class KernelFileTests : IDisposable
{
    private readonly VmmProgram _vmm = new();

    public KernelFileTests() => NeedsKvm.Check();

    public void Dispose() => _vmm.Dispose();

    [SkippableFact]
    public void Missing() => Kernel(Path.Combine(_vmm.Folder, "nothing"), "nothing", "No such file or directory", "--kernel");

    [SkippableFact]
    public void Empty() => Kernel(_vmm.Make("empty", []), "empty", "is empty", "--kernel");

    [SkippableFact]
    public void A_directory() => Kernel(_vmm.Folder, "is a directory", "--kernel");

    [SkippableFact]
    public void A_device() => Kernel("/dev/zero", "/dev/zero", "not a regular file");

    [SkippableFact]
    public void A_file_below_a_file() => Kernel(_vmm.Make("file", [1]) + "/kernel", "Not a directory");

    [SkippableTheory]
    [InlineData(1)]
    [InlineData(4)]
    [InlineData(600)]
    [InlineData(100_000)]
    public void Random_bytes(int length)
    {
        byte[] bytes = new byte[length];
        new Random(length).NextBytes(bytes);
        Kernel(_vmm.Make("random", bytes), "neither a bzImage nor an ELF file");
    }

    [SkippableFact]
    public void Text() => Kernel(_vmm.Make("text", "#!/bin/sh\necho hello\n"u8), "neither a bzImage nor an ELF file");

    [SkippableTheory]
    [InlineData(5)]
    [InlineData(63)]
    [InlineData(64)]
    [InlineData(100)]
    [InlineData(0x1000)]
    [InlineData(0x1001)]
    public void A_truncated_ELF_file(int length) => Kernel(_vmm.Make("truncated", Good().AsSpan(0, length)), "truncated");

    [SkippableFact]
    public void A_truncated_bzImage()
    {
        byte[] file = new byte[2048];
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(0x1FE), 0xAA55);
        "HdrS"u8.CopyTo(file.AsSpan(0x202));
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(0x206), 0x20F);
        file[0x1F1] = 30;
        file[0x211] = 1;
        Kernel(_vmm.Make("bzImage", file), "bzImage");
    }

    [SkippableFact]
    public void Of_another_machine()
    {
        byte[] file = Good();
        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(18), 183);
        Kernel(_vmm.Make("aarch64", file), "aarch64", "x86-64");
    }

    [SkippableFact]
    public void Of_32_bits()
    {
        byte[] file = Good();
        file[4] = 1;
        Kernel(_vmm.Make("i386", file), "i386", "64");
    }

    [SkippableTheory]
    [InlineData(1L << 30, "--memory size=1025M")]
    [InlineData(1L << 37, "made for lower addresses")]
    public void Larger_than_the_memory(long length, string next)
    {
        byte[] head = Good();
        BinaryPrimitives.WriteUInt64LittleEndian(head.AsSpan(64 + 32), (ulong)length);
        BinaryPrimitives.WriteUInt64LittleEndian(head.AsSpan(64 + 40), (ulong)length);
        Kernel(_vmm.MakeSparse("huge", length + 0x1000, head), "huge", "has 64 MiB", next);
    }

    [SkippableFact]
    public void A_large_file_of_zeros() => Kernel(_vmm.MakeSparse("zeros", 1L << 38, [0]), "neither a bzImage nor an ELF file");

    [SkippableFact]
    public void Unreadable() => AsNobody("kernel", "--kernel");

    [SkippableFact]
    public void Initramfs_missing() => Initramfs(Path.Combine(_vmm.Folder, "nothing"), "nothing", "No such file or directory", "--initramfs");

    [SkippableFact]
    public void Initramfs_empty() => Initramfs(_vmm.Make("empty", []), "empty", "is empty", "--initramfs");

    [SkippableFact]
    public void Initramfs_a_directory() => Initramfs(_vmm.Folder, "is a directory", "--initramfs");

    [SkippableTheory]
    [InlineData(63L << 20)]
    [InlineData(1L << 38)]
    public void Initramfs_larger_than_the_memory(long length) => Initramfs(_vmm.MakeSparse("huge", length, [1]), "huge", "--memory");

    [SkippableFact]
    public void Initramfs_unreadable() => AsNobody("initramfs", "--kernel", _vmm.Make("good", Good()), "--initramfs");

    [SkippableTheory]
    [InlineData(2048)]
    [InlineData(70_000)]
    public void A_command_line_too_long(int length) =>
        Run("--kernel", _vmm.Make("kernel", Good()), "--cmdline", new string('x', length))
            .IsOneLine(ExitCodes.BadArguments, "command line", $"{length}", "2047", "--cmdline");

    [SkippableTheory]
    [InlineData("console=ttyS0\nroot=/dev/vda")]
    [InlineData("console=ttyS0\r")]
    [InlineData("\u001b[31mred")]
    public void A_command_line_with_a_control_character(string text) =>
        Run("--kernel", _vmm.Make("kernel", Good()), "--cmdline", text).IsOneLine(ExitCodes.BadArguments, "--cmdline", "control character", "remove it");

    [SkippableFact]
    public void The_good_one_of_these_tests_is_good() =>
        Assert.Equal(new Outcome(0, "", ""), Run("--kernel", _vmm.Make("kernel", Good()), "--cmdline", new string('x', 2047), "--initramfs", _vmm.Make("initramfs", [1])));

    private static byte[] Good() => GuestProgram.Elf(a => a.PowerOff());

    private void Kernel(string path, params string[] parts) => Run("--kernel", path).IsOneLine(ExitCodes.BadArguments, parts);

    private void Initramfs(string path, params string[] parts) =>
        Run("--kernel", _vmm.Make("good", Good()), "--initramfs", path).IsOneLine(ExitCodes.BadArguments, parts);

    // With consoles that make files: what did not start must not leave them.
    private Outcome Run(params string[] arguments)
    {
        _vmm.MayRemain.Clear();
        string console = arguments.Contains("--initramfs") && arguments.Contains("--cmdline") ? "null" : "file=console";
        return _vmm.Run(["run", "--memory", "size=64M", "--serial", console, "--debug-console", "socket=debug", .. arguments]);
    }

    private void AsNobody(string what, params string[] options)
    {
        string path = _vmm.Make("secret", Good());
        File.SetUnixFileMode(path, UnixFileMode.None);
        if (Environment.UserName == "root")
        {
            // Root without its right to read everything; /dev/kvm stays its own.
            _vmm.Prefix = "exec setpriv --bounding-set=-all --inh-caps=-all";
        }

        _vmm.Run(["run", "--memory", "size=64M", .. options, path]).IsOneLine(ExitCodes.BadArguments, what, "secret", "denied");
    }
}
