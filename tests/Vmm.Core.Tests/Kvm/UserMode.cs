using Vmm.Core.Interop;
using Vmm.Core.Kvm;
using Vmm.Core.Memory;

namespace Vmm.Core.Tests.Kvm;

/// <summary>Turns a vCPU that was set up for 64-bit kernel code into one that runs the same code in user mode (CPL 3).</summary>
internal static class UserMode
{
    private const ulong UserBit = 4;

    public static void Enter(KvmVcpu vcpu, GuestMemory memory)
    {
        vcpu.GetSregs(out kvm_sregs sregs);
        OpenTables(memory, sregs.cr3, level: 4);
        sregs.cs.selector = 0x33;
        sregs.cs.dpl = 3;
        sregs.ss.selector = 0x2B;
        sregs.ss.dpl = 3;
        sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss;
        vcpu.SetSregs(sregs);
    }

    private static void OpenTables(GuestMemory memory, ulong table, int level)
    {
        for (ulong i = 0; i < 512; i++)
        {
            ulong at = table + (i * 8);
            Assert.True(memory.TryRead(at, out ulong entry));
            if ((entry & 1) == 0)
                continue;
            memory.Write(at, entry | UserBit);
            if (level > 1 && (entry & 0x80) == 0)
                OpenTables(memory, entry & 0x000F_FFFF_FFFF_F000, level - 1);
        }
    }
}
