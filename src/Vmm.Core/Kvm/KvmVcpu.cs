using System.Runtime.CompilerServices;
using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Kvm;

/// <summary>One vCPU. Apart from <see cref="RequestImmediateExit"/>, only the thread that runs it calls it.</summary>
internal sealed unsafe class KvmVcpu : IDisposable
{
    private readonly FileDescriptor _fd;
    private readonly HostMapping _mapping;
    private readonly int _number;

    internal KvmVcpu(FileDescriptor fd, nuint mmapSize, int id)
    {
        _fd = fd;
        _number = fd.Number;
        Id = id;
        _mapping = HostMapping.TryMap(mmapSize, PROT_READ | PROT_WRITE, MAP_SHARED, _number)
            ?? throw KvmError.Last($"map the shared area of vCPU {id}");
        Shared = (kvm_run*)_mapping.Address;
    }

    /// <summary>The id it was created with; also its APIC id.</summary>
    internal int Id { get; }

    /// <summary>The area shared with KVM; valid until <see cref="Dispose"/>.</summary>
    internal kvm_run* Shared { get; }

    /// <summary>The bytes of a port access, inside the shared area; null when KVM's numbers do not lie in it.</summary>
    internal byte* PortData(ulong offset, ulong length) =>
        offset <= _mapping.Length && length <= _mapping.Length - offset ? _mapping.Address + offset : null;

    /// <summary>KVM_RUN: 0, or an errno.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal int Run() => ioctl(_number, KVM_RUN, 0) >= 0 ? 0 : errno;

    /// <summary>Makes the next (or the current, with a signal) KVM_RUN return EINTR after it has completed pending I/O. Any thread.</summary>
    internal void RequestImmediateExit() => Volatile.Write(ref Shared->immediate_exit, 1);

    /// <summary>Takes <see cref="RequestImmediateExit"/> back.</summary>
    internal void ClearImmediateExit() => Volatile.Write(ref Shared->immediate_exit, 0);

    /// <summary>KVM_SET_SIGNAL_MASK: the signals blocked inside KVM_RUN, as a bit for each signal (bit n-1 for signal n).</summary>
    internal void SetSignalMask(ulong mask)
    {
        // The kernel's sigset_t is 8 bytes; the C library's is larger.
        byte* buffer = stackalloc byte[12];
        ((kvm_signal_mask*)buffer)->len = 8;
        Unsafe.WriteUnaligned(buffer + 4, mask);
        Check(ioctl(_number, KVM_SET_SIGNAL_MASK, buffer), "set the signal mask");
    }

    /// <summary>KVM_GET_STATS_FD; null where this host's KVM has none (before Linux 5.14). It waits for a KVM_RUN to end.</summary>
    internal FileDescriptor? TryOpenStatistics()
    {
        int fd = ioctl(_number, KVM_GET_STATS_FD, 0);
        return fd < 0 ? null : new FileDescriptor(fd);
    }

    internal void GetRegs(out kvm_regs regs) => Get(KVM_GET_REGS, out regs, "read the registers");

    internal void SetRegs(in kvm_regs regs) => Set(KVM_SET_REGS, regs, "set the registers");

    internal void GetSregs(out kvm_sregs sregs) => Get(KVM_GET_SREGS, out sregs, "read the system registers");

    internal void SetSregs(in kvm_sregs sregs) => Set(KVM_SET_SREGS, sregs, "set the system registers");

    internal void SetFpu(in kvm_fpu fpu) => Set(KVM_SET_FPU, fpu, "set the FPU");

    internal void GetLapic(out kvm_lapic_state lapic) => Get(KVM_GET_LAPIC, out lapic, "read the local APIC");

    internal void SetLapic(in kvm_lapic_state lapic) => Set(KVM_SET_LAPIC, lapic, "set the local APIC");

    internal void GetVcpuEvents(out kvm_vcpu_events events) => Get(KVM_GET_VCPU_EVENTS, out events, "read the pending events");

    internal void SetGuestDebug(in kvm_guest_debug debug) => Set(KVM_SET_GUEST_DEBUG, debug, "set the debug state");

    /// <summary>KVM_NMI: queues a non-maskable interrupt.</summary>
    internal void Nmi() => Check(ioctl(_number, KVM_NMI, 0), "send an NMI");

    /// <summary>KVM_GET_MP_STATE.</summary>
    internal uint GetMpState()
    {
        Get(KVM_GET_MP_STATE, out kvm_mp_state state, "read the run state");
        return state.mp_state;
    }

    /// <summary>KVM_SET_MP_STATE.</summary>
    internal void SetMpState(uint state) => Set(KVM_SET_MP_STATE, new kvm_mp_state { mp_state = state }, "set the run state");

    /// <summary>KVM_GET_TSC_KHZ; 0 where KVM does not tell.</summary>
    internal uint GetTscKhz() => (uint)Math.Max(0, ioctl(_number, KVM_GET_TSC_KHZ, 0));

    /// <summary>KVM_SET_TSC_KHZ; false where the host cannot scale to it.</summary>
    internal bool TrySetTscKhz(uint khz) => ioctl(_number, KVM_SET_TSC_KHZ, (nuint)khz) >= 0;

    /// <summary>KVM_TRANSLATE: the guest-physical address behind a linear one; false where the guest maps nothing.</summary>
    internal bool TryTranslate(ulong linear, out ulong physical)
    {
        var translation = new kvm_translation { linear_address = linear };
        bool ok = ioctl(_number, KVM_TRANSLATE, &translation) >= 0 && translation.valid != 0;
        physical = translation.physical_address;
        return ok;
    }

    /// <summary>KVM_SET_CPUID2.</summary>
    internal void SetCpuid(ReadOnlySpan<kvm_cpuid_entry2> entries)
    {
        byte* buffer = stackalloc byte[sizeof(kvm_cpuid2) + (entries.Length * sizeof(kvm_cpuid_entry2))];
        var header = (kvm_cpuid2*)buffer;
        header->nent = (uint)entries.Length;
        header->padding = 0;
        entries.CopyTo(new Span<kvm_cpuid_entry2>(header + 1, entries.Length));
        Check(ioctl(_number, KVM_SET_CPUID2, header), "set its CPUID leaves");
    }

    /// <summary>KVM_SET_MSRS: how many were taken, from the first on; it stops at one that KVM does not know.</summary>
    internal int SetMsrs(ReadOnlySpan<kvm_msr_entry> entries)
    {
        byte* buffer = stackalloc byte[sizeof(kvm_msrs) + (entries.Length * sizeof(kvm_msr_entry))];
        var header = (kvm_msrs*)buffer;
        header->nmsrs = (uint)entries.Length;
        header->pad = 0;
        entries.CopyTo(new Span<kvm_msr_entry>(header + 1, entries.Length));
        return Check(ioctl(_number, KVM_SET_MSRS, header), "set its model-specific registers");
    }

    /// <summary>KVM_GET_MSRS: fills in the data of the entries; how many, from the first on.</summary>
    internal int GetMsrs(Span<kvm_msr_entry> entries)
    {
        byte* buffer = stackalloc byte[sizeof(kvm_msrs) + (entries.Length * sizeof(kvm_msr_entry))];
        var header = (kvm_msrs*)buffer;
        header->nmsrs = (uint)entries.Length;
        header->pad = 0;
        var area = new Span<kvm_msr_entry>(header + 1, entries.Length);
        entries.CopyTo(area);
        int got = Check(ioctl(_number, KVM_GET_MSRS, header), "read its model-specific registers");
        area.CopyTo(entries);
        return got;
    }

    public void Dispose()
    {
        _mapping.Dispose();
        _fd.Dispose();
    }

    private void Get<T>(nuint request, out T value, string doing) where T : unmanaged
    {
        fixed (T* memory = &value)
            Check(ioctl(_number, request, memory), doing);
    }

    private void Set<T>(nuint request, in T value, string doing) where T : unmanaged
    {
        fixed (T* memory = &value)
            Check(ioctl(_number, request, memory), doing);
    }

    // The sentence is built only when it is needed.
    private int Check(int result, string doing) => result < 0 ? throw KvmError.Last($"{doing} of vCPU {Id}") : result;
}
