using System.Buffers.Binary;
using Vmm.Core.Memory;

namespace Vmm.Core.Boot;

/// <summary>
/// The zero page, <c>struct boot_params</c>: what Linux's 64-bit boot protocol is told (Documentation/arch/x86/zero-page.rst and
/// boot.rst, "64-bit Boot Protocol"). Offsets are into that page.
/// </summary>
internal static class ZeroPage
{
    /// <summary>The memory map's type of RAM.</summary>
    internal const uint UsableRam = 1;

    internal const int AcpiRsdpAddress = 0x070;
    internal const int ExtRamdiskImage = 0x0C0;
    internal const int ExtRamdiskSize = 0x0C4;
    internal const int ExtCommandLine = 0x0C8;
    internal const int E820Count = 0x1E8;
    internal const int SetupHeader = 0x1F1;
    internal const int VideoMode = 0x1FA;
    internal const int BootFlag = 0x1FE;
    internal const int HeaderMagic = 0x202;
    internal const int Version = 0x206;
    internal const int TypeOfLoader = 0x210;
    internal const int LoadFlags = 0x211;
    internal const int Code32Start = 0x214;
    internal const int RamdiskImage = 0x218;
    internal const int RamdiskSize = 0x21C;
    internal const int CommandLinePointer = 0x228;
    internal const int InitrdAddressMax = 0x22C;
    internal const int KernelAlignment = 0x230;
    internal const int XLoadFlags = 0x236;
    internal const int CommandLineSize = 0x238;
    internal const int SetupData = 0x250;
    internal const int E820Table = 0x2D0;
    internal const int E820EntrySize = 20;

    private const byte UndefinedLoader = 0xFF;
    private const byte LoadedHigh = 1 << 0;
    private const byte KaslrDone = 1 << 1;
    private const byte CanUseHeap = 1 << 7;
    private const ushort NormalVideo = 0xFFFF;

    // What a header made here says: boot protocol 2.12, XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G.
    private const ushort OwnVersion = 0x20C;
    private const ushort OwnXLoadFlags = 3;

    /// <summary>
    /// Writes the page. Without a header (an ELF kernel has none) one is made; an initramfs of length 0 is none.
    /// </summary>
    public static void Write(
        GuestMemory memory, BootRequest request, BzImageHeader? header, ulong kernelStart, (ulong Address, ulong Length) initramfs)
    {
        Span<byte> page = stackalloc byte[BootLayout.ZeroPageSize];
        page.Clear();
        if (header != null)
            header.Raw.CopyTo(page[SetupHeader..]);
        else
            SynthesiseHeader(page);

        page[TypeOfLoader] = UndefinedLoader;
        page[LoadFlags] = (byte)((page[LoadFlags] | LoadedHigh) & ~(KaslrDone | CanUseHeap));
        BinaryPrimitives.WriteUInt16LittleEndian(page[VideoMode..], NormalVideo);
        BinaryPrimitives.WriteUInt32LittleEndian(page[Code32Start..], (uint)kernelStart);
        BinaryPrimitives.WriteUInt64LittleEndian(page[SetupData..], 0);
        Put64(page, CommandLinePointer, ExtCommandLine, BootLayout.CommandLine);
        Put64(page, RamdiskImage, ExtRamdiskImage, initramfs.Address);
        Put64(page, RamdiskSize, ExtRamdiskSize, initramfs.Length);
        BinaryPrimitives.WriteUInt64LittleEndian(page[AcpiRsdpAddress..], request.AcpiRsdp);

        page[E820Count] = (byte)request.E820.Count;
        for (int i = 0; i < request.E820.Count; i++)
        {
            Span<byte> entry = page.Slice(E820Table + (i * E820EntrySize), E820EntrySize);
            BinaryPrimitives.WriteUInt64LittleEndian(entry, request.E820[i].Start);
            BinaryPrimitives.WriteUInt64LittleEndian(entry[8..], request.E820[i].Length);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[16..], (uint)request.E820[i].Type);
        }
        memory.Write(BootLayout.ZeroPage, page);
    }

    private static void SynthesiseHeader(Span<byte> page)
    {
        BinaryPrimitives.WriteUInt16LittleEndian(page[BootFlag..], BzImageHeader.BootFlag);
        BinaryPrimitives.WriteUInt32LittleEndian(page[HeaderMagic..], BzImageHeader.Magic);
        BinaryPrimitives.WriteUInt16LittleEndian(page[Version..], OwnVersion);
        BinaryPrimitives.WriteUInt16LittleEndian(page[XLoadFlags..], OwnXLoadFlags);
        BinaryPrimitives.WriteUInt32LittleEndian(page[KernelAlignment..], 0x1000000);
        BinaryPrimitives.WriteUInt32LittleEndian(page[InitrdAddressMax..], uint.MaxValue);
        BinaryPrimitives.WriteUInt32LittleEndian(page[CommandLineSize..], BootLayout.LinuxCommandLineLimit);
    }

    private static void Put64(Span<byte> page, int low, int high, ulong value)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(page[low..], (uint)value);
        BinaryPrimitives.WriteUInt32LittleEndian(page[high..], (uint)(value >> 32));
    }
}
