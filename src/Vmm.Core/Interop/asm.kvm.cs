using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

internal struct kvm_regs
{
    internal ulong rax, rbx, rcx, rdx;
    internal ulong rsi, rdi, rsp, rbp;
    internal ulong r8, r9, r10, r11;
    internal ulong r12, r13, r14, r15;
    internal ulong rip, rflags;
}

internal struct kvm_segment
{
    internal ulong @base;
    internal uint limit;
    internal ushort selector;
    internal byte type;
    internal byte present, dpl, db, s, l, g, avl;
    internal byte unusable;
    internal byte padding;
}

[StructLayout(LayoutKind.Sequential)]
internal struct kvm_dtable
{
    internal ulong @base;
    internal ushort limit;
    internal ushort padding0, padding1, padding2;
}

internal struct kvm_sregs
{
    internal kvm_segment cs, ds, es, fs, gs, ss;
    internal kvm_segment tr, ldt;
    internal kvm_dtable gdt, idt;
    internal ulong cr0, cr2, cr3, cr4, cr8;
    internal ulong efer;
    internal ulong apic_base;
    internal U64x4 interrupt_bitmap;
}

[InlineArray(4)]
internal struct U64x4
{
    private ulong _element0;
}

[StructLayout(LayoutKind.Explicit, Size = 416)]
internal struct kvm_fpu
{
    [FieldOffset(128)] internal ushort fcw;
    [FieldOffset(408)] internal uint mxcsr;
}

[InlineArray(1024)]
internal struct kvm_lapic_state
{
    private byte _regs0;
}

internal struct kvm_msr_entry
{
    internal uint index;
    internal uint reserved;
    internal ulong data;
}

/// <summary>Followed in memory by <see cref="nmsrs"/> kvm_msr_entry.</summary>
internal struct kvm_msrs
{
    internal uint nmsrs;
    internal uint pad;
}

/// <summary>Followed in memory by <see cref="nmsrs"/> indices of 32 bits.</summary>
internal struct kvm_msr_list
{
    internal uint nmsrs;
}

internal struct kvm_cpuid_entry2
{
    internal uint function;
    internal uint index;
    internal uint flags;
    internal uint eax, ebx, ecx, edx;
    internal uint padding0, padding1, padding2;
}

/// <summary>Followed in memory by <see cref="nent"/> kvm_cpuid_entry2.</summary>
internal struct kvm_cpuid2
{
    internal uint nent;
    internal uint padding;
}

[StructLayout(LayoutKind.Explicit, Size = 64)]
internal struct kvm_vcpu_events
{
    [FieldOffset(0)] internal byte exception_injected;
    [FieldOffset(1)] internal byte exception_nr;
    [FieldOffset(2)] internal byte exception_has_error_code;
    [FieldOffset(3)] internal byte exception_pending;
    [FieldOffset(4)] internal uint exception_error_code;
    [FieldOffset(8)] internal byte interrupt_injected;
    [FieldOffset(9)] internal byte interrupt_nr;
    [FieldOffset(10)] internal byte interrupt_soft;
    [FieldOffset(11)] internal byte interrupt_shadow;
    [FieldOffset(12)] internal byte nmi_injected;
    [FieldOffset(13)] internal byte nmi_pending;
    [FieldOffset(14)] internal byte nmi_masked;
    [FieldOffset(16)] internal uint sipi_vector;
    [FieldOffset(20)] internal uint flags;
}

internal static partial class LibC
{
    internal const uint KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1;
    internal const uint KVM_X86_QUIRK_SLOT_ZAP_ALL = 1 << 7;
}
