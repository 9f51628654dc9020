using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Vmm.Core.Interop;

/// <summary>The area that a vCPU shares with us; the parts of its union that we use.</summary>
[StructLayout(LayoutKind.Explicit)]
internal struct kvm_run
{
    [FieldOffset(0)] internal byte request_interrupt_window;
    [FieldOffset(1)] internal byte immediate_exit;
    [FieldOffset(8)] internal uint exit_reason;
    [FieldOffset(12)] internal byte ready_for_interrupt_injection;
    [FieldOffset(13)] internal byte if_flag;
    [FieldOffset(14)] internal ushort flags;
    [FieldOffset(16)] internal ulong cr8;
    [FieldOffset(24)] internal ulong apic_base;
    [FieldOffset(32)] internal kvm_run_io io;
    [FieldOffset(32)] internal kvm_run_mmio mmio;
    [FieldOffset(32)] internal kvm_run_fail_entry fail_entry;
    [FieldOffset(32)] internal kvm_run_internal @internal;
    [FieldOffset(32)] internal kvm_run_system_event system_event;
}

internal struct kvm_run_io
{
    internal byte direction;
    internal byte size;
    internal ushort port;
    internal uint count;
    internal ulong data_offset;
}

internal struct kvm_run_mmio
{
    internal ulong phys_addr;
    internal ulong data;
    internal uint len;
    internal byte is_write;
}

internal struct kvm_run_fail_entry
{
    internal ulong hardware_entry_failure_reason;
    internal uint cpu;
}

internal struct kvm_run_internal
{
    internal uint suberror;
    internal uint ndata;
    internal U64x16 data;
}

internal struct kvm_run_system_event
{
    internal uint type;
    internal uint ndata;
    internal U64x16 data;
}

[InlineArray(16)]
internal struct U64x16
{
    private ulong _element0;
}

internal struct kvm_userspace_memory_region
{
    internal uint slot;
    internal uint flags;
    internal ulong guest_phys_addr;
    internal ulong memory_size;
    internal ulong userspace_addr;
}

internal struct kvm_irq_level
{
    internal uint irq;
    internal uint level;
}

internal struct kvm_irq_routing_irqchip
{
    internal uint irqchip;
    internal uint pin;
}

internal struct kvm_irq_routing_msi
{
    internal uint address_lo;
    internal uint address_hi;
    internal uint data;
    internal uint devid;
}

[StructLayout(LayoutKind.Explicit, Size = 48)]
internal struct kvm_irq_routing_entry
{
    [FieldOffset(0)] internal uint gsi;
    [FieldOffset(4)] internal uint type;
    [FieldOffset(8)] internal uint flags;
    [FieldOffset(12)] internal uint pad;
    [FieldOffset(16)] internal kvm_irq_routing_irqchip irqchip;
    [FieldOffset(16)] internal kvm_irq_routing_msi msi;
}

/// <summary>Followed in memory by <see cref="nr"/> kvm_irq_routing_entry.</summary>
internal struct kvm_irq_routing
{
    internal uint nr;
    internal uint flags;
}

[StructLayout(LayoutKind.Explicit, Size = 32)]
internal struct kvm_irqfd
{
    [FieldOffset(0)] internal uint fd;
    [FieldOffset(4)] internal uint gsi;
    [FieldOffset(8)] internal uint flags;
    [FieldOffset(12)] internal uint resamplefd;
}

[StructLayout(LayoutKind.Explicit, Size = 64)]
internal struct kvm_ioeventfd
{
    [FieldOffset(0)] internal ulong datamatch;
    [FieldOffset(8)] internal ulong addr;
    [FieldOffset(16)] internal uint len;
    [FieldOffset(20)] internal int fd;
    [FieldOffset(24)] internal uint flags;
}

internal struct kvm_msi
{
    internal uint address_lo;
    internal uint address_hi;
    internal uint data;
    internal uint flags;
    internal uint devid;
    internal U8x12 pad;
}

[InlineArray(12)]
internal struct U8x12
{
    private byte _element0;
}

internal struct kvm_dirty_log
{
    internal uint slot;
    internal uint padding1;
    internal ulong dirty_bitmap;
}

internal struct kvm_mp_state
{
    internal uint mp_state;
}

internal struct kvm_stats_header
{
    internal uint flags;
    internal uint name_size;
    internal uint num_desc;
    internal uint id_offset;
    internal uint desc_offset;
    internal uint data_offset;
}

/// <summary>The name follows: <see cref="kvm_stats_header.name_size"/> bytes, with a zero at its end.</summary>
internal struct kvm_stats_desc
{
    internal uint flags;
    internal short exponent;
    internal ushort size;
    internal uint offset;
    internal uint bucket_size;
}

[StructLayout(LayoutKind.Explicit, Size = 48)]
internal struct kvm_clock_data
{
    [FieldOffset(0)] internal ulong clock;
    [FieldOffset(8)] internal uint flags;
    [FieldOffset(16)] internal ulong realtime;
    [FieldOffset(24)] internal ulong host_tsc;
}

[StructLayout(LayoutKind.Explicit, Size = 64)]
internal struct kvm_pit_config
{
    [FieldOffset(0)] internal uint flags;
}

[StructLayout(LayoutKind.Explicit, Size = 104)]
internal struct kvm_enable_cap
{
    [FieldOffset(0)] internal uint cap;
    [FieldOffset(4)] internal uint flags;
    [FieldOffset(8)] internal ulong args0;
}

/// <summary>Followed in memory by <see cref="len"/> bytes of the kernel's sigset_t.</summary>
internal struct kvm_signal_mask
{
    internal uint len;
}

internal struct kvm_translation
{
    internal ulong linear_address;
    internal ulong physical_address;
    internal byte valid;
    internal byte writeable;
    internal byte usermode;
    internal byte pad0, pad1, pad2, pad3, pad4;
}

[StructLayout(LayoutKind.Explicit, Size = 72)]
internal struct kvm_guest_debug
{
    [FieldOffset(0)] internal uint control;
    [FieldOffset(4)] internal uint pad;
    [FieldOffset(8)] internal ulong debugreg0;
}

internal static partial class LibC
{
    internal const int KVM_API_VERSION = 12;

    internal const uint KVM_EXIT_UNKNOWN = 0;
    internal const uint KVM_EXIT_EXCEPTION = 1;
    internal const uint KVM_EXIT_IO = 2;
    internal const uint KVM_EXIT_DEBUG = 4;
    internal const uint KVM_EXIT_HLT = 5;
    internal const uint KVM_EXIT_MMIO = 6;
    internal const uint KVM_EXIT_IRQ_WINDOW_OPEN = 7;
    internal const uint KVM_EXIT_SHUTDOWN = 8;
    internal const uint KVM_EXIT_FAIL_ENTRY = 9;
    internal const uint KVM_EXIT_INTR = 10;
    internal const uint KVM_EXIT_INTERNAL_ERROR = 17;
    internal const uint KVM_EXIT_SYSTEM_EVENT = 24;
    internal const byte KVM_EXIT_IO_IN = 0;
    internal const byte KVM_EXIT_IO_OUT = 1;

    internal const uint KVM_INTERNAL_ERROR_EMULATION = 1;

    internal const int KVM_CAP_IRQCHIP = 0;
    internal const int KVM_CAP_USER_MEMORY = 3;
    internal const int KVM_CAP_SET_TSS_ADDR = 4;
    internal const int KVM_CAP_EXT_CPUID = 7;
    internal const int KVM_CAP_NR_VCPUS = 9;
    internal const int KVM_CAP_NR_MEMSLOTS = 10;
    internal const int KVM_CAP_MP_STATE = 14;
    internal const int KVM_CAP_SYNC_MMU = 16;
    internal const int KVM_CAP_SET_GUEST_DEBUG = 23;
    internal const int KVM_CAP_IRQ_ROUTING = 25;
    internal const int KVM_CAP_IRQFD = 32;
    internal const int KVM_CAP_PIT2 = 33;
    internal const int KVM_CAP_IOEVENTFD = 36;
    internal const int KVM_CAP_SET_IDENTITY_MAP_ADDR = 37;
    internal const int KVM_CAP_ADJUST_CLOCK = 39;
    internal const int KVM_CAP_VCPU_EVENTS = 41;
    internal const int KVM_CAP_DEBUGREGS = 50;
    internal const int KVM_CAP_XSAVE = 55;
    internal const int KVM_CAP_XCRS = 56;
    internal const int KVM_CAP_TSC_CONTROL = 60;
    internal const int KVM_CAP_GET_TSC_KHZ = 61;
    internal const int KVM_CAP_MAX_VCPUS = 66;
    internal const int KVM_CAP_TSC_DEADLINE_TIMER = 72;
    internal const int KVM_CAP_SIGNAL_MSI = 77;
    internal const int KVM_CAP_READONLY_MEM = 81;
    internal const int KVM_CAP_MAX_VCPU_ID = 128;
    internal const int KVM_CAP_X2APIC_API = 129;
    internal const int KVM_CAP_IMMEDIATE_EXIT = 136;
    internal const int KVM_CAP_EXCEPTION_PAYLOAD = 164;
    internal const int KVM_CAP_X86_MSR_FILTER = 189;
    internal const int KVM_CAP_DISABLE_QUIRKS2 = 213;

    internal const uint KVM_MEM_LOG_DIRTY_PAGES = 1;
    internal const uint KVM_MEM_READONLY = 2;

    internal const uint KVM_IRQ_ROUTING_IRQCHIP = 1;
    internal const uint KVM_IRQ_ROUTING_MSI = 2;
    internal const uint KVM_IRQCHIP_PIC_MASTER = 0;
    internal const uint KVM_IRQCHIP_PIC_SLAVE = 1;
    internal const uint KVM_IRQCHIP_IOAPIC = 2;

    internal const uint KVM_IRQFD_FLAG_DEASSIGN = 1;
    internal const uint KVM_IRQFD_FLAG_RESAMPLE = 2;

    internal const uint KVM_IOEVENTFD_FLAG_DATAMATCH = 1;
    internal const uint KVM_IOEVENTFD_FLAG_PIO = 2;
    internal const uint KVM_IOEVENTFD_FLAG_DEASSIGN = 4;

    internal const uint KVM_MP_STATE_RUNNABLE = 0;
    internal const uint KVM_MP_STATE_UNINITIALIZED = 1;
    internal const uint KVM_MP_STATE_INIT_RECEIVED = 2;
    internal const uint KVM_MP_STATE_HALTED = 3;
    internal const uint KVM_MP_STATE_SIPI_RECEIVED = 4;

    internal const uint KVM_PIT_SPEAKER_DUMMY = 1;

    internal const ulong KVM_X2APIC_API_USE_32BIT_IDS = 1;
    internal const ulong KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK = 2;

    internal const uint KVM_SYSTEM_EVENT_SHUTDOWN = 1;
    internal const uint KVM_SYSTEM_EVENT_RESET = 2;
    internal const uint KVM_SYSTEM_EVENT_CRASH = 3;

    internal const nuint KVM_GET_API_VERSION = 0xAE00;
    internal const nuint KVM_CREATE_VM = 0xAE01;
    internal const nuint KVM_GET_MSR_INDEX_LIST = 0xC004AE02;
    internal const nuint KVM_CHECK_EXTENSION = 0xAE03;
    internal const nuint KVM_GET_VCPU_MMAP_SIZE = 0xAE04;
    internal const nuint KVM_GET_SUPPORTED_CPUID = 0xC008AE05;
    internal const nuint KVM_CREATE_VCPU = 0xAE41;
    internal const nuint KVM_GET_DIRTY_LOG = 0x4010AE42;
    internal const nuint KVM_SET_USER_MEMORY_REGION = 0x4020AE46;
    internal const nuint KVM_SET_TSS_ADDR = 0xAE47;
    internal const nuint KVM_SET_IDENTITY_MAP_ADDR = 0x4008AE48;
    internal const nuint KVM_CREATE_IRQCHIP = 0xAE60;
    internal const nuint KVM_IRQ_LINE = 0x4008AE61;
    internal const nuint KVM_SET_GSI_ROUTING = 0x4008AE6A;
    internal const nuint KVM_IRQFD = 0x4020AE76;
    internal const nuint KVM_CREATE_PIT2 = 0x4040AE77;
    internal const nuint KVM_SET_BOOT_CPU_ID = 0xAE78;
    internal const nuint KVM_IOEVENTFD = 0x4040AE79;
    internal const nuint KVM_SET_CLOCK = 0x4030AE7B;
    internal const nuint KVM_GET_CLOCK = 0x8030AE7C;
    internal const nuint KVM_RUN = 0xAE80;
    internal const nuint KVM_GET_REGS = 0x8090AE81;
    internal const nuint KVM_SET_REGS = 0x4090AE82;
    internal const nuint KVM_GET_SREGS = 0x8138AE83;
    internal const nuint KVM_SET_SREGS = 0x4138AE84;
    internal const nuint KVM_TRANSLATE = 0xC018AE85;
    internal const nuint KVM_GET_MSRS = 0xC008AE88;
    internal const nuint KVM_SET_MSRS = 0x4008AE89;
    internal const nuint KVM_SET_SIGNAL_MASK = 0x4004AE8B;
    internal const nuint KVM_GET_FPU = 0x81A0AE8C;
    internal const nuint KVM_SET_FPU = 0x41A0AE8D;
    internal const nuint KVM_GET_LAPIC = 0x8400AE8E;
    internal const nuint KVM_SET_LAPIC = 0x4400AE8F;
    internal const nuint KVM_SET_CPUID2 = 0x4008AE90;
    internal const nuint KVM_GET_MP_STATE = 0x8004AE98;
    internal const nuint KVM_SET_MP_STATE = 0x4004AE99;
    internal const nuint KVM_NMI = 0xAE9A;
    internal const nuint KVM_SET_GUEST_DEBUG = 0x4048AE9B;
    internal const nuint KVM_GET_VCPU_EVENTS = 0x8040AE9F;
    internal const nuint KVM_SET_VCPU_EVENTS = 0x4040AEA0;
    internal const nuint KVM_SET_TSC_KHZ = 0xAEA2;
    internal const nuint KVM_GET_TSC_KHZ = 0xAEA3;
    internal const nuint KVM_ENABLE_CAP = 0x4068AEA3;
    internal const nuint KVM_SIGNAL_MSI = 0x4020AEA5;
    internal const nuint KVM_KVMCLOCK_CTRL = 0xAEAD;
    internal const nuint KVM_GET_STATS_FD = 0xAECE;

    internal const uint KVM_GUESTDBG_ENABLE = 1;
    internal const uint KVM_GUESTDBG_SINGLESTEP = 2;
}
