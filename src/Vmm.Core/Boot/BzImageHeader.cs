using System.Buffers.Binary;
using System.Numerics;

namespace Vmm.Core.Boot;

/// <summary>
/// The setup header of a bzImage (Linux's Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header"), validated field by
/// field. Offsets are from the file's start, as they are there.
/// </summary>
internal sealed class BzImageHeader
{
    internal const int HeaderStart = 0x1F1;
    internal const int HeaderRoomEnd = 0x290;
    internal const ushort BootFlag = 0xAA55;
    internal const uint Magic = 0x53726448;
    internal const ushort MinimumVersion = 0x20C;

    // What version 2.12 ends with: handover_offset at 0x264.
    private const int MinimumHeaderEnd = 0x268;
    private const int SectorSize = 512;
    private const int DefaultSetupSectors = 4;
    private const ulong EntryOffset64 = 0x200;
    private const byte LoadedHigh = 1 << 0;
    private const ushort Kernel64 = 1 << 0;
    private const ushort CanBeLoadedAbove4G = 1 << 1;

    private readonly byte[] _raw;

    private BzImageHeader(byte[] raw) => _raw = raw;

    /// <summary>The bytes for the zero page, from offset 0x1F1 on.</summary>
    public ReadOnlySpan<byte> Raw => _raw;

    /// <summary>Where the protected-mode kernel begins in the file.</summary>
    public ulong KernelOffset { get; private init; }

    /// <summary>The length of the protected-mode kernel in the file, in bytes.</summary>
    public ulong KernelLength { get; private init; }

    /// <summary>The boot protocol's version: 0x20F is 2.15.</summary>
    public ushort Version { get; private init; }

    public bool Relocatable { get; private init; }

    /// <summary>A power of two, in bytes.</summary>
    public ulong Alignment { get; private init; }

    public ulong PreferredAddress { get; private init; }

    /// <summary>Memory that the kernel needs from its load address on, in bytes.</summary>
    public ulong InitSize { get; private init; }

    /// <summary>The longest command line, in bytes without its NUL.</summary>
    public uint CommandLineSize { get; private init; }

    /// <summary>The last address that an initramfs may occupy.</summary>
    public uint InitramfsAddressMax { get; private init; }

    /// <summary>Whether an initramfs may lie above 4 GiB.</summary>
    public bool AboveFourGiB { get; private init; }

    /// <summary>Where the packed kernel begins in the file; meaningful where <see cref="PayloadLength"/> is not 0.</summary>
    public ulong PayloadOffset { get; private init; }

    /// <summary>The packed kernel's length with the four bytes of its unpacked size, in bytes.</summary>
    public ulong PayloadLength { get; private init; }

    /// <summary>The 64-bit entry for a load address.</summary>
    public static ulong EntryAt(ulong loadAddress) => loadAddress + EntryOffset64;

    /// <summary>Whether a file says that it is a bzImage, rightly or not.</summary>
    public static bool Claims(IKernelFile file)
    {
        if (file.Length < 0x206)
            return false;
        Span<byte> head = stackalloc byte[8];
        file.Read(0x1FE, head);
        return BinaryPrimitives.ReadUInt16LittleEndian(head) == BootFlag || BinaryPrimitives.ReadUInt32LittleEndian(head[4..]) == Magic;
    }

    /// <summary>Reads and validates the header.</summary>
    /// <exception cref="VmmException">A field is wrong, or the file is not a bzImage for 64-bit PCs.</exception>
    public static BzImageHeader Parse(IKernelFile file)
    {
        if (file.Length < MinimumHeaderEnd)
            throw Bad(file, $"is too short for a bzImage: {file.Length} bytes, and the setup header alone ends at {MinimumHeaderEnd}");
        byte[] page = new byte[HeaderRoomEnd];
        file.Read(0, page.AsSpan(0, (int)Math.Min(file.Length, HeaderRoomEnd)));

        ushort U16(int offset) => BinaryPrimitives.ReadUInt16LittleEndian(page.AsSpan(offset));
        uint U32(int offset) => BinaryPrimitives.ReadUInt32LittleEndian(page.AsSpan(offset));

        if (U16(0x1FE) != BootFlag)
            throw Field(file, "boot_flag", U16(0x1FE), "not 0xaa55: this is no bzImage");
        if (U32(0x202) != Magic)
            throw Field(file, "header", U32(0x202), "not 0x53726448 (\"HdrS\"): this is no bzImage");
        ushort version = U16(0x206);
        if (version < MinimumVersion)
            throw Field(file, "version", version, "and at least 0x20c (2.12, Linux 3.8) is needed for the 64-bit entry; take a newer kernel");
        int headerEnd = 0x202 + page[0x201];
        if (headerEnd < MinimumHeaderEnd || headerEnd > HeaderRoomEnd)
            throw Field(file, "jump", page[0x201], $"so that the header would end at 0x{headerEnd:x}, outside 0x{MinimumHeaderEnd:x}-0x{HeaderRoomEnd:x}");
        if ((page[0x211] & LoadedHigh) == 0)
            throw Field(file, "loadflags", page[0x211], "without LOADED_HIGH: this is an old zImage; take a bzImage");
        ushort loadFlags64 = U16(0x236);
        if ((loadFlags64 & Kernel64) == 0)
            throw Field(file, "xloadflags", loadFlags64, "without XLF_KERNEL_64: this is a 32-bit kernel; take one for x86-64");

        (ulong kernelOffset, ulong kernelLength) = Sections(file, page[0x1F1], U32(0x1F4));
        ulong preferred = BinaryPrimitives.ReadUInt64LittleEndian(page.AsSpan(0x258));
        uint initSize = U32(0x260);
        if (initSize < kernelLength)
            throw Field(file, "init_size", initSize, $"less than the {kernelLength} bytes of the kernel in the file");
        bool relocatable = page[0x234] != 0;
        uint alignment = U32(0x230);
        if (!BitOperations.IsPow2(alignment) || alignment < BootLayout.PageSize)
            throw Field(file, "kernel_alignment", alignment, "not a power of two of at least 4096");
        if (preferred < BootLayout.HighMemoryStart)
            throw Field(file, "pref_address", preferred, "below 1 MiB");
        if (preferred > ulong.MaxValue - initSize)
            throw Field(file, "pref_address", preferred, "past the end of all addresses");
        if (relocatable && (preferred & (alignment - 1)) != 0)
            throw Field(file, "pref_address", preferred, $"not a multiple of kernel_alignment (0x{alignment:x})");
        uint commandLineSize = U32(0x238);
        if (commandLineSize == 0)
            throw Field(file, "cmdline_size", commandLineSize, "so that it would take no command line");
        uint initramfsMax = U32(0x22C);
        if (initramfsMax < BootLayout.HighMemoryStart)
            throw Field(file, "initrd_addr_max", initramfsMax, "below 1 MiB");
        uint payloadOffset = U32(0x248);
        uint payloadLength = U32(0x24C);
        if (payloadOffset > kernelLength)
            throw Field(file, "payload_offset", payloadOffset, $"past the kernel's {kernelLength} bytes");
        if (payloadLength > kernelLength - payloadOffset)
            throw Field(file, "payload_length", payloadLength, $"more than the {kernelLength - payloadOffset} bytes that follow payload_offset");

        return new BzImageHeader(page[HeaderStart..headerEnd])
        {
            KernelOffset = kernelOffset,
            KernelLength = kernelLength,
            Version = version,
            Relocatable = relocatable,
            Alignment = alignment,
            PreferredAddress = preferred,
            InitSize = initSize,
            CommandLineSize = commandLineSize,
            InitramfsAddressMax = initramfsMax,
            AboveFourGiB = (loadFlags64 & CanBeLoadedAbove4G) != 0,
            PayloadOffset = kernelOffset + payloadOffset,
            PayloadLength = payloadLength,
        };
    }

    private static (ulong Offset, ulong Length) Sections(IKernelFile file, byte setupSectors, uint paragraphs)
    {
        ulong offset = (ulong)((setupSectors == 0 ? DefaultSetupSectors : setupSectors) + 1) * SectorSize;
        if (offset >= file.Length)
            throw Field(file, "setup_sects", setupSectors, $"so that the kernel would begin at {offset}, past the file's {file.Length} bytes");
        ulong length = (ulong)paragraphs * 16;
        if (length <= EntryOffset64)
            throw Field(file, "syssize", paragraphs, "too small to hold the 64-bit entry");
        ulong present = file.Length - offset;
        // The size is in 16-byte paragraphs, and newer build scripts no longer fill up the last one.
        if (length >= present + 16)
        {
            throw VmmException.Configuration(
                $"The {file.Name} is truncated: its setup header's syssize says 0x{paragraphs:x} ({length} bytes from {offset} on) and it ends after {present}; get the file again.");
        }
        return (offset, Math.Min(length, present));
    }

    private static VmmException Field(IKernelFile file, string field, ulong value, string why) =>
        VmmException.Configuration($"Cannot load the {file.Name}: its setup header's {field} is 0x{value:x}, {why}.");

    private static VmmException Bad(IKernelFile file, string why) => VmmException.Configuration($"The {file.Name} {why}.");
}
