using System.Runtime.InteropServices;
using Iced.Intel;
using Vmm.Core.Boot;
using Vmm.Core.Cpu;
using Vmm.Core.Interop;
using Vmm.Core.Kvm;
using Vmm.Core.Memory;
using Vmm.Core.Tests.Payloads;
using static Iced.Intel.AssemblerRegisters;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Tests.Kvm;

/// <summary>What can be read from, and set in, a VM and its vCPUs; and how a guest is entered and ends.</summary>
[Collection(nameof(KvmCollection))]
public sealed unsafe class KvmStateTests
{
    private const uint MsrStar = 0xC000_0081;
    private const uint MsrLstar = 0xC000_0082;
    private const uint MsrMtrrDefType = 0x2FF;
    private const uint MsrUnknown = 0x1234_5678;
    private const ulong Results = 0x11_0000;

    [SkippableFact]
    public void The_64_bit_entry_is_as_Linux_wants_it()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        machine.Load(Payload.Long(StoreState), BootEntryMode.Long64, bootData: 0x7000).Run();
        Assert.Equal(0x7000UL, Result(machine, 1));
        Assert.Equal(0x10UL, Result(machine, 2) & 0xFFFF);
        Assert.Equal(0x18UL, Result(machine, 3) & 0xFFFF);
        ulong cr0 = Result(machine, 4), cr4 = Result(machine, 5);
        Assert.Equal(0x8000_0001UL, cr0 & 0x8000_0001);
        Assert.Equal(0x20UL, cr4 & 0x20);
        Assert.Equal(0UL, Result(machine, 6) & 0x200);
        // The stack of the entry is memory, and all of RAM is mapped onto itself.
        Assert.Equal(0xABCDUL, Result(machine, 7));
    }

    [SkippableFact]
    public void The_PVH_entry_is_as_Xen_defines_it()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        machine.Load(
            Payload.Protected(a =>
            {
                a.mov(edi, (uint)Results);
                a.mov(__dword_ptr[edi], ebx);
                a.mov(eax, cr0);
                a.mov(__dword_ptr[edi + 4], eax);
                a.mov(eax, cr4);
                a.mov(__dword_ptr[edi + 8], eax);
                a.mov(eax, cs);
                a.mov(__dword_ptr[edi + 12], eax);
                a.mov(eax, ds);
                a.mov(__dword_ptr[edi + 16], eax);
                a.Done();
            }),
            BootEntryMode.Protected32,
            bootData: 0x6000).Run();
        Assert.True(machine.Memory.TryGetSpan(Results, 20, out Span<byte> bytes));
        uint[] found = MemoryMarshal.Cast<byte, uint>(bytes).ToArray();
        Assert.Equal(0x6000u, found[0]);
        Assert.Equal(1u, found[1] & 0x8000_0001);
        Assert.Equal(0u, found[2]);
        Assert.Equal(0x10u, found[3] & 0xFFFF);
        Assert.Equal(0x18u, found[4] & 0xFFFF);
        kvm_sregs sregs = machine.Boot.Invoke(v =>
        {
            v.GetSregs(out kvm_sregs s);
            return s;
        });
        Assert.Equal((0u, 0xFFFF_FFFFu, (byte)1, (byte)0), ((uint)sregs.cs.@base, sregs.cs.limit, sregs.cs.db, sregs.cs.l));
        Assert.Equal((0x67u, (byte)0xB), (sregs.tr.limit, sregs.tr.type));
        Assert.Equal(0UL, sregs.efer & 0x500);
    }

    [SkippableFact]
    public void Registers_read_back_as_set()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        KvmVcpu vcpu = machine.Boot.Kvm;
        var wanted = new kvm_regs { rax = 1, rbx = 2, rcx = 3, rdx = 4, rsi = 5, rdi = 6, rsp = 7, rbp = 8, r8 = 9, r9 = 10, r10 = 11, r11 = 12, r12 = 13, r13 = 14, r14 = 15, r15 = 16, rip = 0x10_0000, rflags = 0x246 };
        vcpu.SetRegs(wanted);
        vcpu.GetRegs(out kvm_regs found);
        Assert.True(MemoryMarshal.AsBytes(new Span<kvm_regs>(ref wanted)).SequenceEqual(MemoryMarshal.AsBytes(new Span<kvm_regs>(ref found))));
        vcpu.GetVcpuEvents(out kvm_vcpu_events events);
        Assert.Equal((0, 0, 0), (events.exception_injected, events.interrupt_injected, events.nmi_pending));
    }

    [SkippableFact]
    public void Model_specific_registers_read_back_up_to_the_first_unknown()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        KvmVcpu vcpu = machine.Boot.Kvm;
        kvm_msr_entry[] entries = [new() { index = MsrStar, data = 0x0023_0010_0000_0000 }, new() { index = MsrLstar, data = 0x1234_5000 }];
        Assert.Equal(2, vcpu.SetMsrs(entries));
        entries[0].data = entries[1].data = 0;
        Assert.Equal(2, vcpu.GetMsrs(entries));
        Assert.Equal(0x0023_0010_0000_0000UL, entries[0].data);
        Assert.Equal(0x1234_5000UL, entries[1].data);
        kvm_msr_entry[] mtrr = [new() { index = MsrMtrrDefType }];
        if (vcpu.GetMsrs(mtrr) == 1)
            Assert.Equal(0x806UL, mtrr[0].data);
        Skip.If(File.Exists("/sys/module/kvm/parameters/ignore_msrs") && File.ReadAllText("/sys/module/kvm/parameters/ignore_msrs").StartsWith('Y'), "This KVM is told to know all registers.");
        kvm_msr_entry[] mixed = [new() { index = MsrStar }, new() { index = MsrUnknown }, new() { index = MsrLstar, data = 99 }];
        Assert.Equal(1, vcpu.GetMsrs(mixed));
        Assert.Equal(99UL, mixed[2].data);
        Assert.Equal(0, vcpu.SetMsrs([new() { index = MsrUnknown }]));
    }

    [SkippableFact]
    public void The_pins_of_the_local_APIC_take_the_PIC_and_NMIs()
    {
        HostKvm.Needed();
        using var machine = new TestMachine(vcpus: 2);
        foreach (Vcpu vcpu in machine.Vcpus)
        {
            vcpu.Kvm.GetLapic(out kvm_lapic_state lapic);
            Span<byte> registers = MemoryMarshal.AsBytes(new Span<kvm_lapic_state>(ref lapic));
            Assert.Equal((uint)vcpu.Id, MemoryMarshal.Read<uint>(registers[0x20..]) >> 24);
            // Bit 16 masks; bits 10:8 are the delivery mode: 7 is ExtINT, 4 is NMI.
            Assert.Equal(0x700u, MemoryMarshal.Read<uint>(registers[0x350..]) & 0x10700);
            Assert.Equal(0x400u, MemoryMarshal.Read<uint>(registers[0x360..]) & 0x10700);
        }
    }

    [SkippableFact]
    public void The_time_stamp_counter_has_a_frequency()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        uint khz = machine.Boot.Kvm.GetTscKhz();
        Assert.InRange(khz, 100_000u, 20_000_000u);
        Assert.True(machine.Boot.Kvm.TrySetTscKhz(khz));
        Assert.Equal(khz, machine.Boot.Kvm.GetTscKhz());
    }

    [SkippableFact]
    public void The_guests_clock_goes_on_from_where_it_is_set()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        const ulong hour = 3_600_000_000_000;
        machine.Vm.SetClock(1000 * hour);
        ulong first = machine.Vm.GetClock().clock;
        ulong second = machine.Vm.GetClock().clock;
        Assert.InRange(first, 1000 * hour, 1001 * hour);
        Assert.InRange(second, first, 1001 * hour);
    }

    [SkippableFact]
    public void The_first_vcpu_can_run_and_the_others_wait()
    {
        HostKvm.Needed();
        using var machine = new TestMachine(vcpus: 2);
        Assert.Equal(KVM_MP_STATE_RUNNABLE, machine.Vcpus[0].Kvm.GetMpState());
        Assert.Equal(KVM_MP_STATE_UNINITIALIZED, machine.Vcpus[1].Kvm.GetMpState());
        machine.Vcpus[1].Kvm.SetMpState(KVM_MP_STATE_RUNNABLE);
        Assert.Equal(KVM_MP_STATE_RUNNABLE, machine.Vcpus[1].Kvm.GetMpState());
        machine.Vcpus[1].Kvm.SetMpState(KVM_MP_STATE_HALTED);
        Assert.Equal(KVM_MP_STATE_HALTED, machine.Vcpus[1].Kvm.GetMpState());
    }

    [SkippableFact]
    public void The_first_vcpu_starts_the_second()
    {
        HostKvm.Needed();
        const ulong realMode = 0x1_8000;
        using var machine = new TestMachine(vcpus: 2);
        machine.Memory.Write(realMode, Payload.Real(a => a.Done(0x77), 0));
        machine.Load(Payload.Long(a =>
        {
            a.EnableLocalApic();
            // INIT, then start-up with vector 0x18, to APIC 1 (Intel SDM vol. 3A §11.6.1).
            foreach (int command in new[] { 0x4500, 0x4618 })
            {
                a.mov(__dword_ptr[rbx + 0x310], 1 << 24);
                a.mov(__dword_ptr[rbx + 0x300], command);
            }
            a.Spin();
        }));
        machine.Vcpus[1].Start();
        Assert.Equal(0x77, machine.Run());
        Assert.Equal(KVM_MP_STATE_RUNNABLE, machine.Vcpus[1].Invoke(v => v.GetMpState()));
    }

    [SkippableFact]
    public void The_dirty_log_has_the_pages_that_the_guest_wrote()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        GuestRegion region = machine.Memory.Regions[0];
        machine.Vm.SetMemoryRegion(0, 0, TestMachine.RamSize, region.Host, KVM_MEM_LOG_DIRTY_PAGES);
        ulong[] pages = [0x101, 0x13F, 0x140, 0x1FF];
        machine.Load(Payload.Long(a =>
        {
            foreach (ulong page in pages)
                a.mov(__byte_ptr[(page << 12) + 5], al);
            a.mov(al, __byte_ptr[0x15_0000]);
            a.Done();
        }));
        ulong[] bitmap = new ulong[TestMachine.RamSize / 4096 / 64];
        machine.Vm.GetDirtyLog(0, bitmap);
        machine.Run();
        machine.Vm.GetDirtyLog(0, bitmap);
        // Below 1 MiB are the page tables, where KVM itself may have set accessed bits.
        Assert.Equal(pages, Enumerable.Range(0x100, 0x100).Where(p => (bitmap[p / 64] >> (p % 64) & 1) != 0).Select(p => (ulong)p));
        machine.Boot.RequestStop();
        machine.Boot.Join();
        machine.Vm.GetDirtyLog(0, bitmap);
        Assert.Equal(0UL, bitmap[4] | bitmap[5] | bitmap[6] | bitmap[7]);
    }

    [SkippableTheory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_fault_without_a_handler_is_a_triple_fault(bool user)
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        byte[] code = Payload.Long(a => a.ud2());
        VcpuEnd end = (user ? machine.LoadUser(code) : machine.Load(code)).RunToEnd();
        Assert.Equal(new VcpuEnd(0, VcpuEndReason.TripleFault, 0, null), end);
        Assert.False(machine.Done.IsSet);
    }

    [SkippableFact]
    public void Code_where_no_memory_is_cannot_be_run()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        VcpuEnd end = machine.Load(Payload.Long(a =>
        {
            a.mov(rax, 0xC000_0000);
            a.jmp(rax);
        })).RunToEnd();
        Assert.Equal(VcpuEndReason.InternalError, end.Reason);
        Assert.Equal(KVM_INTERNAL_ERROR_EMULATION, end.Code);
        Assert.Equal("an instruction that KVM cannot emulate", end.Detail);
        Assert.Equal(0xC000_0000UL, machine.Boot.Invoke(v =>
        {
            v.GetRegs(out kvm_regs regs);
            return regs.rip;
        }));
    }

    [SkippableFact]
    public void Single_steps_exit_after_each_instruction()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        machine.Load(Payload.Long(a =>
        {
            a.nop();
            a.mov(eax, 1);
            a.inc(eax);
            a.Spin();
        }));
        KvmVcpu vcpu = machine.Boot.Kvm;
        vcpu.SetGuestDebug(new kvm_guest_debug { control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP });
        foreach (ulong offset in new ulong[] { 1, 6, 8, 8 })
        {
            int error;
            while ((error = vcpu.Run()) is EINTR or EAGAIN)
            {
            }
            Assert.Equal(0, error);
            Assert.Equal(KVM_EXIT_DEBUG, vcpu.Shared->exit_reason);
            vcpu.GetRegs(out kvm_regs regs);
            Assert.Equal(Payload.Address + offset, regs.rip);
        }
        vcpu.GetRegs(out kvm_regs last);
        Assert.Equal(2UL, last.rax);
    }

    [SkippableFact]
    public void Linear_addresses_are_translated_by_the_guests_tables()
    {
        HostKvm.Needed();
        using var machine = new TestMachine();
        machine.Load(Payload.Long(a => a.Spin()));
        KvmVcpu vcpu = machine.Boot.Kvm;
        foreach (ulong linear in new[] { 0UL, Payload.Address + 0x123, 0xFFFF_FFFF })
        {
            Assert.True(vcpu.TryTranslate(linear, out ulong physical));
            Assert.Equal(linear, physical);
        }
        Assert.False(vcpu.TryTranslate(0x1_0000_0000, out _));
        // 2 MiB at 0x4000_0000 now lead to 0.
        machine.Memory.Write(0xC000, 0x83UL);
        Assert.True(vcpu.TryTranslate(0x4000_0456, out ulong moved));
        Assert.Equal(0x456UL, moved);
    }

    [SkippableFact]
    public void The_speed_probe_measures()
    {
        HostKvm.Needed();
        Assert.InRange(SpeedProbe.MeasureInstructionsPerSecond(), 1e4, 1e12);
    }

    /// <summary>Stores RSI, CS, DS, CR0, CR4, RFLAGS and what was pushed on the stack, each 8 bytes, from result 1 on.</summary>
    private static void StoreState(Assembler a)
    {
        a.mov(rdi, Results);
        a.mov(__qword_ptr[rdi + 8], rsi);
        a.mov(eax, cs);
        a.mov(__qword_ptr[rdi + 16], rax);
        a.mov(eax, ds);
        a.mov(__qword_ptr[rdi + 24], rax);
        a.mov(rax, cr0);
        a.mov(__qword_ptr[rdi + 32], rax);
        a.mov(rax, cr4);
        a.mov(__qword_ptr[rdi + 40], rax);
        a.pushfq();
        a.pop(rax);
        a.mov(__qword_ptr[rdi + 48], rax);
        a.mov(eax, 0xABCD);
        a.push(rax);
        a.mov(rax, __qword_ptr[rsp]);
        a.mov(__qword_ptr[rdi + 56], rax);
        a.Done();
    }

    private static ulong Result(TestMachine machine, int index)
    {
        Assert.True(machine.Memory.TryRead(Results + ((ulong)index * 8), out ulong value));
        return value;
    }
}
