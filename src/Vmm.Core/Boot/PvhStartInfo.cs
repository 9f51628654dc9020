using System.Buffers.Binary;
using Vmm.Core.Memory;

namespace Vmm.Core.Boot;

/// <summary>
/// <c>hvm_start_info</c> version 1 with its module list and memory map: what a kernel entered by PVH is told (Xen's
/// public/arch-x86/hvm/start_info.h; docs/misc/pvh).
/// </summary>
internal static class PvhStartInfo
{
    internal const uint Magic = 0x336EC578;
    internal const int Size = 56;
    internal const int ModuleSize = 32;
    internal const int MemoryMapEntrySize = 24;
    private const uint OwnVersion = 1;

    /// <summary>Writes the structures; an initramfs of length 0 is none.</summary>
    public static void Write(GuestMemory memory, BootRequest request, (ulong Address, ulong Length) initramfs)
    {
        Span<byte> page = stackalloc byte[(int)BootLayout.PageSize];
        page.Clear();
        int modules = initramfs.Length == 0 ? 0 : 1;
        BinaryPrimitives.WriteUInt32LittleEndian(page, Magic);
        BinaryPrimitives.WriteUInt32LittleEndian(page[4..], OwnVersion);
        BinaryPrimitives.WriteUInt32LittleEndian(page[12..], (uint)modules);
        BinaryPrimitives.WriteUInt64LittleEndian(page[16..], modules == 0 ? 0 : BootLayout.HvmModuleList);
        BinaryPrimitives.WriteUInt64LittleEndian(page[24..], BootLayout.CommandLine);
        BinaryPrimitives.WriteUInt64LittleEndian(page[32..], request.AcpiRsdp);
        BinaryPrimitives.WriteUInt64LittleEndian(page[40..], BootLayout.HvmMemoryMap);
        BinaryPrimitives.WriteUInt32LittleEndian(page[48..], (uint)request.E820.Count);

        Span<byte> module = page.Slice((int)(BootLayout.HvmModuleList - BootLayout.HvmStartInfo), ModuleSize);
        BinaryPrimitives.WriteUInt64LittleEndian(module, initramfs.Address);
        BinaryPrimitives.WriteUInt64LittleEndian(module[8..], initramfs.Length);

        int map = (int)(BootLayout.HvmMemoryMap - BootLayout.HvmStartInfo);
        for (int i = 0; i < request.E820.Count; i++)
        {
            Span<byte> entry = page.Slice(map + (i * MemoryMapEntrySize), MemoryMapEntrySize);
            BinaryPrimitives.WriteUInt64LittleEndian(entry, request.E820[i].Start);
            BinaryPrimitives.WriteUInt64LittleEndian(entry[8..], request.E820[i].Length);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[16..], (uint)request.E820[i].Type);
        }
        memory.Write(BootLayout.HvmStartInfo, page);
    }
}
