using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Kvm;

/// <summary>/dev/kvm: what this host's KVM can do, and where VMs come from.</summary>
internal sealed unsafe class KvmSystem : IDisposable
{
    internal const string DefaultDevice = "/dev/kvm";

    private readonly FileDescriptor _fd;

    private KvmSystem(FileDescriptor fd)
    {
        _fd = fd;
        VcpuMmapSize = (nuint)KvmError.Check(ioctl(fd.Number, KVM_GET_VCPU_MMAP_SIZE, 0), "ask KVM for the size of a vCPU's shared area");
    }

    /// <summary>Bytes of the area that each vCPU shares with us.</summary>
    internal nuint VcpuMmapSize { get; }

    /// <summary>What a machine cannot do without.</summary>
    internal static IReadOnlyList<(int Capability, string Name)> Required { get; } =
    [
        (KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"),
        (KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"),
        (KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"),
        (KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"),
        (KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"),
        (KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"),
        (KVM_CAP_IRQFD, "KVM_CAP_IRQFD"),
        (KVM_CAP_PIT2, "KVM_CAP_PIT2"),
        (KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"),
        (KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR"),
        (KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK"),
        (KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"),
        (KVM_CAP_XSAVE, "KVM_CAP_XSAVE"),
        (KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"),
        (KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"),
    ];

    /// <summary>Opens /dev/kvm and checks that it has all that is <see cref="Required"/>.</summary>
    /// <exception cref="VmmException">It is missing, not ours to use, too old, or lacks something.</exception>
    internal static KvmSystem Open(string device = DefaultDevice)
    {
        KvmSystem kvm = OpenUnchecked(device);
        foreach ((int capability, string name) in Required)
        {
            if (kvm.CheckExtension(capability) > 0)
                continue;
            kvm.Dispose();
            throw VmmException.Host($"Cannot use {device}: this host's KVM lacks {name}, which every machine needs; 'vmm check' lists what it has, a newer host kernel may have it.");
        }
        return kvm;
    }

    /// <summary>Opens /dev/kvm and checks no more than that it speaks the stable API.</summary>
    internal static KvmSystem OpenUnchecked(string device = DefaultDevice)
    {
        int number = open(device, O_RDWR | O_CLOEXEC, 0);
        if (number < 0)
        {
            int error = errno;
            throw VmmException.Host(error switch
            {
                ENOENT or ENXIO or ENODEV => $"Cannot open {device}: it does not exist; load the kvm_intel or kvm_amd module, enable virtualization in the firmware, or use the sandbox (scripts/demo).",
                EACCES or EPERM => $"Cannot open {device}: permission denied; add the user to the group that owns it (usually 'kvm'), or run as root.",
                _ => $"Cannot open {device}: {strerror(error)} (errno {error}).",
            });
        }
        var fd = new FileDescriptor(number);
        int version = ioctl(number, KVM_GET_API_VERSION, 0);
        if (version != KVM_API_VERSION)
        {
            fd.Dispose();
            throw VmmException.Host(version < 0
                ? $"Cannot use {device}: it does not answer as KVM does; is it the right device node?"
                : $"Cannot use {device}: its KVM API version is {version}, the stable one is {KVM_API_VERSION}.");
        }
        return new KvmSystem(fd);
    }

    /// <summary>KVM_CHECK_EXTENSION: 0 where it is not there, else 1 or a number that the capability defines.</summary>
    internal int CheckExtension(int capability) => Math.Max(0, ioctl(_fd.Number, KVM_CHECK_EXTENSION, (nuint)capability));

    /// <summary>The most vCPUs a VM may have.</summary>
    internal int MaxVcpus
    {
        get
        {
            int most = CheckExtension(KVM_CAP_MAX_VCPUS);
            return most > 0 ? most : Math.Max(CheckExtension(KVM_CAP_NR_VCPUS), 4);
        }
    }

    /// <summary>KVM_CREATE_VM.</summary>
    internal KvmVm CreateVm()
    {
        int fd;
        // Creating a VM can be interrupted while KVM waits for other processors.
        do
        {
            fd = ioctl(_fd.Number, KVM_CREATE_VM, 0);
        }
        while (fd < 0 && errno == EINTR);
        var vm = new KvmVm(new FileDescriptor(KvmError.Check(fd, "create a VM")), VcpuMmapSize);
        vm.KeepPagesOfOtherSlots();
        return vm;
    }

    /// <summary>KVM_GET_SUPPORTED_CPUID: the leaves that KVM and this processor offer to guests.</summary>
    internal kvm_cpuid_entry2[] GetSupportedCpuid()
    {
        for (uint room = 128; room <= 4096; room *= 2)
        {
            fixed (byte* buffer = new byte[sizeof(kvm_cpuid2) + ((int)room * sizeof(kvm_cpuid_entry2))])
            {
                var header = (kvm_cpuid2*)buffer;
                header->nent = room;
                if (ioctl(_fd.Number, KVM_GET_SUPPORTED_CPUID, header) >= 0)
                    return new Span<kvm_cpuid_entry2>(header + 1, (int)header->nent).ToArray();
            }
            if (errno != E2BIG)
                break;
        }
        throw KvmError.Last("ask KVM which CPUID leaves it supports");
    }

    public void Dispose() => _fd.Dispose();
}
