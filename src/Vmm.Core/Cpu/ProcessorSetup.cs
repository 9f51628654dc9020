using Vmm.Core.Boot;
using Vmm.Core.Interop;
using Vmm.Core.Kvm;
using Vmm.Core.Memory;

namespace Vmm.Core.Cpu;

/// <summary>The state in which a boot protocol enters the guest.</summary>
internal static class ProcessorSetup
{
    // Below the zero page; see BootLayout for what else lives in the first 64 KiB.
    private const ulong GdtAddress = 0x500;
    private const ulong Pml4Address = 0x9000;
    private const ulong PdptAddress = 0xA000;
    private const ulong PageDirectoryAddress = 0xB000;
    private const int MappedGigabytes = 4;

    private const ulong PageTablePresentWritable = 0x3;
    private const ulong PageTableLarge = 0x80;

    private const ulong Cr0Pe = 1 << 0;
    private const ulong Cr0Et = 1 << 4;
    private const ulong Cr0Pg = 1UL << 31;
    private const ulong Cr4Pae = 1 << 5;
    private const ulong EferLme = 1 << 8;
    private const ulong EferLma = 1 << 10;
    private const ulong RflagsReserved = 1 << 1;

    // Descriptors at selectors 0x10 (code), 0x18 (data) and 0x20 (task state): Linux's __BOOT_CS and __BOOT_DS.
    private const ushort CodeSelector = 0x10;
    private const ushort DataSelector = 0x18;
    private const ushort TaskSelector = 0x20;

    /// <summary>Writes what the boot processor needs in memory and sets its registers.</summary>
    internal static void EnterGuest(KvmVcpu vcpu, GuestMemory memory, BootEntry entry)
    {
        bool longMode = entry.Mode == BootEntryMode.Long64;
        WriteGdt(memory, longMode);
        vcpu.GetSregs(out kvm_sregs sregs);
        kvm_segment code = Segment(CodeSelector, type: 0xB, longMode);
        kvm_segment data = Segment(DataSelector, type: 0x3, longMode: false);
        sregs.cs = code;
        sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
        sregs.tr = TaskState();
        sregs.gdt.@base = GdtAddress;
        sregs.gdt.limit = (5 * 8) - 1;
        sregs.idt.@base = 0;
        sregs.idt.limit = 0;
        if (longMode)
        {
            WritePageTables(memory);
            sregs.cr3 = Pml4Address;
            sregs.cr4 = Cr4Pae;
            sregs.cr0 = Cr0Pe | Cr0Et | Cr0Pg;
            sregs.efer = EferLme | EferLma;
        }
        else
        {
            // PVH: 32-bit protected mode without paging (Xen's boot ABI for HVM guests).
            sregs.cr0 = Cr0Pe | Cr0Et;
            sregs.cr4 = 0;
            sregs.efer = 0;
        }
        vcpu.SetSregs(sregs);
        var regs = new kvm_regs { rip = entry.InstructionPointer, rflags = RflagsReserved };
        if (longMode)
        {
            regs.rsi = entry.BootDataAddress;
            regs.rsp = regs.rbp = 0x8FF0;
        }
        else
        {
            regs.rbx = entry.BootDataAddress;
        }
        vcpu.SetRegs(regs);
    }

    private static kvm_segment Segment(ushort selector, byte type, bool longMode) => new()
    {
        limit = 0xFFFFFFFF,
        selector = selector,
        type = type,
        present = 1,
        s = 1,
        g = 1,
        l = longMode ? (byte)1 : (byte)0,
        db = longMode ? (byte)0 : (byte)1,
    };

    private static kvm_segment TaskState() => new() { limit = 0x67, selector = TaskSelector, type = 0xB, present = 1 };

    private static void WriteGdt(GuestMemory memory, bool longMode)
    {
        Span<ulong> gdt = stackalloc ulong[5];
        gdt[CodeSelector / 8] = longMode ? 0x00AF_9B00_0000_FFFFUL : 0x00CF_9B00_0000_FFFFUL;
        gdt[DataSelector / 8] = 0x00CF_9300_0000_FFFFUL;
        gdt[TaskSelector / 8] = 0x0000_8B00_0000_0067UL;
        for (int i = 0; i < gdt.Length; i++)
            memory.Write(GdtAddress + ((ulong)i * 8), gdt[i]);
    }

    /// <summary>Maps the first 4 GiB onto themselves in 2 MiB pages.</summary>
    private static void WritePageTables(GuestMemory memory)
    {
        memory.Write(Pml4Address, PdptAddress | PageTablePresentWritable);
        for (ulong gigabyte = 0; gigabyte < MappedGigabytes; gigabyte++)
        {
            ulong directory = PageDirectoryAddress + (gigabyte * 0x1000);
            memory.Write(PdptAddress + (gigabyte * 8), directory | PageTablePresentWritable);
            for (ulong entry = 0; entry < 512; entry++)
                memory.Write(directory + (entry * 8), (gigabyte << 30) | (entry << 21) | PageTableLarge | PageTablePresentWritable);
        }
    }
}
