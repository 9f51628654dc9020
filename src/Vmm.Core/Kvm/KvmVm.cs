using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Kvm;

/// <summary>One VM: memory slots, the in-kernel interrupt controllers, and the file descriptors that bypass us.</summary>
internal sealed unsafe class KvmVm : IDisposable
{
    private readonly FileDescriptor _fd;
    private readonly nuint _vcpuMmapSize;

    internal KvmVm(FileDescriptor fd, nuint vcpuMmapSize)
    {
        _fd = fd;
        _vcpuMmapSize = vcpuMmapSize;
    }

    /// <summary>KVM_CHECK_EXTENSION of this VM.</summary>
    internal int CheckExtension(int capability) => Math.Max(0, ioctl(_fd.Number, KVM_CHECK_EXTENSION, (nuint)capability));

    /// <summary>KVM_ENABLE_CAP with one argument; false where KVM refuses.</summary>
    internal bool TryEnableCapability(int capability, ulong argument)
    {
        var cap = new kvm_enable_cap { cap = (uint)capability, args0 = argument };
        return ioctl(_fd.Number, KVM_ENABLE_CAP, &cap) >= 0;
    }

    /// <summary>
    /// Lets KVM forget only the pages of a slot that is deleted or moved, not those of the whole guest (KVM_X86_QUIRK_SLOT_ZAP_ALL, Linux
    /// 6.12): shared windows change slots while the guest runs. Older kernels always forget all.
    /// </summary>
    /// <returns>Whether it does.</returns>
    internal bool KeepPagesOfOtherSlots() =>
        (CheckExtension(KVM_CAP_DISABLE_QUIRKS2) & KVM_X86_QUIRK_SLOT_ZAP_ALL) != 0
        && TryEnableCapability(KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_SLOT_ZAP_ALL);

    /// <summary>
    /// KVM_SET_TSS_ADDR and KVM_SET_IDENTITY_MAP_ADDR: pages that Intel hosts need to run real mode; outside RAM, below 4 GiB.
    /// </summary>
    internal void SetRealModePages(ulong identityMap, ulong tss)
    {
        KvmError.Check(ioctl(_fd.Number, KVM_SET_IDENTITY_MAP_ADDR, &identityMap), "give KVM its identity-map page");
        KvmError.Check(ioctl(_fd.Number, KVM_SET_TSS_ADDR, (nuint)tss), "give KVM its task-state pages");
    }

    /// <summary>KVM_CREATE_IRQCHIP: two PICs, an IOAPIC and a LAPIC for each vCPU, in the kernel.</summary>
    internal void CreateIrqchip() => KvmError.Check(ioctl(_fd.Number, KVM_CREATE_IRQCHIP, 0), "create the interrupt controllers in the kernel");

    /// <summary>KVM_CREATE_PIT2: the 8254 timer in the kernel, port 0x61 included.</summary>
    internal void CreatePit()
    {
        var config = new kvm_pit_config { flags = KVM_PIT_SPEAKER_DUMMY };
        KvmError.Check(ioctl(_fd.Number, KVM_CREATE_PIT2, &config), "create the 8254 timer in the kernel");
    }

    /// <summary>
    /// KVM_SET_USER_MEMORY_REGION: maps, moves, reflags or (with a size of 0) deletes a slot. All addresses and sizes are
    /// multiples of the page size; the caller keeps the host memory mapped as long as the slot lives.
    /// </summary>
    /// <returns>0, or the errno; also after <see cref="Dispose"/>, when the descriptor's number may be another file's.</returns>
    internal int TrySetMemoryRegion(uint slot, ulong guestAddress, ulong size, byte* host, uint flags = 0)
    {
        var region = new kvm_userspace_memory_region
        {
            slot = slot,
            flags = flags,
            guest_phys_addr = guestAddress,
            memory_size = size,
            userspace_addr = (ulong)host,
        };
        bool held = false;
        try
        {
            _fd.DangerousAddRef(ref held);
            return ioctl(_fd.Number, KVM_SET_USER_MEMORY_REGION, &region) < 0 ? errno : 0;
        }
        catch (ObjectDisposedException)
        {
            return EBADF;
        }
        finally
        {
            if (held)
                _fd.DangerousRelease();
        }
    }

    /// <summary>The same at addresses that the program itself chose.</summary>
    /// <exception cref="VmmException">KVM refuses.</exception>
    internal void SetMemoryRegion(uint slot, ulong guestAddress, ulong size, byte* host, uint flags = 0)
    {
        int error = TrySetMemoryRegion(slot, guestAddress, size, host, flags);
        if (error != 0)
            throw KvmError.From(error, $"map {size} bytes of memory at guest address 0x{guestAddress:x} (slot {slot})");
    }

    /// <summary>KVM_GET_DIRTY_LOG: which pages of a slot were written since the last call; one bit a page, 64 to a word.</summary>
    internal void GetDirtyLog(uint slot, Span<ulong> bitmap)
    {
        fixed (ulong* words = bitmap)
        {
            var log = new kvm_dirty_log { slot = slot, dirty_bitmap = (ulong)words };
            KvmError.Check(ioctl(_fd.Number, KVM_GET_DIRTY_LOG, &log), $"read the dirty log of memory slot {slot}");
        }
    }

    /// <summary>
    /// KVM_IRQ_LINE: drives an interrupt line of the in-kernel controllers. False where KVM refuses, and after <see cref="Dispose"/>: a
    /// device's timer may still fire then, and the descriptor's number may be another file's.
    /// </summary>
    internal bool SetIrqLine(uint gsi, bool level)
    {
        bool held = false;
        try
        {
            _fd.DangerousAddRef(ref held);
            var irq = new kvm_irq_level { irq = gsi, level = level ? 1u : 0u };
            return ioctl(_fd.Number, KVM_IRQ_LINE, &irq) >= 0;
        }
        catch (ObjectDisposedException)
        {
            return false;
        }
        finally
        {
            if (held)
                _fd.DangerousRelease();
        }
    }

    /// <summary>KVM_SET_GSI_ROUTING: replaces the whole table.</summary>
    internal void SetGsiRouting(ReadOnlySpan<kvm_irq_routing_entry> entries)
    {
        if (!TrySetGsiRouting(entries))
            throw KvmError.Last($"set {entries.Length} interrupt routes");
    }

    /// <summary>The same, with routes that a guest asked for: false, and nothing changed, where KVM refuses one.</summary>
    internal bool TrySetGsiRouting(ReadOnlySpan<kvm_irq_routing_entry> entries)
    {
        int size = sizeof(kvm_irq_routing) + (entries.Length * sizeof(kvm_irq_routing_entry));
        byte[] buffer = new byte[size];
        fixed (byte* memory = buffer)
        {
            ((kvm_irq_routing*)memory)->nr = (uint)entries.Length;
            entries.CopyTo(new Span<kvm_irq_routing_entry>(memory + sizeof(kvm_irq_routing), entries.Length));
            return ioctl(_fd.Number, KVM_SET_GSI_ROUTING, memory) >= 0;
        }
    }

    /// <summary>KVM_IRQFD: a write to the eventfd raises the GSI without us. With a second eventfd, EOIs are told there (level).</summary>
    internal void AddIrqfd(int eventFd, uint gsi, int resampleFd = -1)
    {
        var irqfd = new kvm_irqfd { fd = (uint)eventFd, gsi = gsi };
        if (resampleFd >= 0)
        {
            irqfd.flags = KVM_IRQFD_FLAG_RESAMPLE;
            irqfd.resamplefd = (uint)resampleFd;
        }
        KvmError.Check(ioctl(_fd.Number, KVM_IRQFD, &irqfd), $"connect an eventfd to interrupt {gsi}");
    }

    /// <summary>Undoes <see cref="AddIrqfd"/>.</summary>
    internal void RemoveIrqfd(int eventFd, uint gsi)
    {
        var irqfd = new kvm_irqfd { fd = (uint)eventFd, gsi = gsi, flags = KVM_IRQFD_FLAG_DEASSIGN };
        KvmError.Check(ioctl(_fd.Number, KVM_IRQFD, &irqfd), $"disconnect an eventfd from interrupt {gsi}");
    }

    /// <summary>KVM_IRQFD for an eventfd that follows what a guest does: false where KVM refuses.</summary>
    internal bool TryIrqfd(int eventFd, uint gsi, bool connect)
    {
        var irqfd = new kvm_irqfd { fd = (uint)eventFd, gsi = gsi, flags = connect ? 0 : KVM_IRQFD_FLAG_DEASSIGN };
        return ioctl(_fd.Number, KVM_IRQFD, &irqfd) >= 0;
    }

    /// <summary>
    /// KVM_IOEVENTFD: a guest's write there signals the eventfd and goes on without us. A length of 0 matches any width (MMIO);
    /// <paramref name="match"/> restricts it to one value.
    /// </summary>
    internal void AddIoEventFd(int eventFd, ulong address, uint length, bool port = false, ulong? match = null) =>
        IoEventFd(eventFd, address, length, port, match, 0, "connect a doorbell");

    /// <summary>Undoes <see cref="AddIoEventFd"/>; the arguments must be the same.</summary>
    internal void RemoveIoEventFd(int eventFd, ulong address, uint length, bool port = false, ulong? match = null) =>
        IoEventFd(eventFd, address, length, port, match, KVM_IOEVENTFD_FLAG_DEASSIGN, "disconnect a doorbell");

    /// <summary>KVM_IOEVENTFD for a doorbell in memory at an address that a guest chose: false where KVM refuses.</summary>
    internal bool TryIoEventFd(int eventFd, ulong address, uint length, ulong? match, bool connect) =>
        IoEventFd(eventFd, address, length, false, match, connect ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN) >= 0;

    private void IoEventFd(int eventFd, ulong address, uint length, bool port, ulong? match, uint flags, string doing) =>
        KvmError.Check(IoEventFd(eventFd, address, length, port, match, flags), $"{doing} at 0x{address:x}");

    private int IoEventFd(int eventFd, ulong address, uint length, bool port, ulong? match, uint flags)
    {
        var io = new kvm_ioeventfd
        {
            datamatch = match ?? 0,
            addr = address,
            len = length,
            fd = eventFd,
            flags = flags | (match.HasValue ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0) | (port ? KVM_IOEVENTFD_FLAG_PIO : 0),
        };
        return ioctl(_fd.Number, KVM_IOEVENTFD, &io);
    }

    /// <summary>KVM_SIGNAL_MSI: delivers one message-signalled interrupt; false when the guest blocked it or KVM refuses.</summary>
    internal bool SignalMsi(ulong address, uint data)
    {
        var msi = new kvm_msi { address_lo = (uint)address, address_hi = (uint)(address >> 32), data = data };
        return ioctl(_fd.Number, KVM_SIGNAL_MSI, &msi) > 0;
    }

    /// <summary>KVM_GET_CLOCK: nanoseconds of the guest's kvm-clock.</summary>
    internal kvm_clock_data GetClock()
    {
        kvm_clock_data clock;
        KvmError.Check(ioctl(_fd.Number, KVM_GET_CLOCK, &clock), "read the guest's clock");
        return clock;
    }

    /// <summary>KVM_SET_CLOCK.</summary>
    internal void SetClock(ulong nanoseconds)
    {
        var clock = new kvm_clock_data { clock = nanoseconds };
        KvmError.Check(ioctl(_fd.Number, KVM_SET_CLOCK, &clock), "set the guest's clock");
    }

    /// <summary>KVM_CREATE_VCPU.</summary>
    internal KvmVcpu CreateVcpu(int id)
    {
        int fd = ioctl(_fd.Number, KVM_CREATE_VCPU, (nuint)id);
        return new KvmVcpu(new FileDescriptor(KvmError.Check(fd, $"create vCPU {id}")), _vcpuMmapSize, id);
    }

    public void Dispose() => _fd.Dispose();
}
