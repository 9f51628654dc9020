namespace Vmm.Core.Tests.Interop;

/// <summary>Where our names differ from C's, and what a system may lack. Everything that is not listed here must have its C name.</summary>
internal static class CNames
{
    /// <summary>The headers of a file that is not named after its one header.</summary>
    public static IReadOnlyDictionary<string, string[]> Headers { get; } = new Dictionary<string, string[]>
    {
        ["sys.stat"] = ["sys/stat.h", "fcntl.h"], // AT_FDCWD
        ["linux.if_tun"] = ["linux/if_tun.h", "sys/ioctl.h"], // _IOW
        ["sys.socket"] = ["sys/socket.h", "sys/un.h", "errno.h"], // sockaddr_un, ECONNREFUSED
    };

    /// <summary>Headers of libraries that are loaded only where they are there, with the package that has them.</summary>
    public static IReadOnlyDictionary<string, string> OptionalHeaders { get; } = new Dictionary<string, string>
    {
        ["lz4.h"] = "liblz4-dev",
        ["zstd.h"] = "libzstd-dev",
        ["lzma.h"] = "liblzma-dev",
    };

    /// <summary>Names that are younger than the oldest supported headers (Debian 12's), with the version that has them.</summary>
    public static IReadOnlyDictionary<string, string> NewerThanOldestHeaders { get; } = new Dictionary<string, string>
    {
        ["TUN_F_USO4"] = "Linux 6.2",
        ["TUN_F_USO6"] = "Linux 6.2",
        ["KVM_X86_QUIRK_SLOT_ZAP_ALL"] = "Linux 6.12",
    };

    /// <summary>C types without a name of their own: members of the union in kvm_run; and names that C# would confuse.</summary>
    public static IReadOnlyDictionary<string, string> Types { get; } = new Dictionary<string, string>
    {
        ["kvm_run_io"] = "__typeof__(((struct kvm_run *)0)->io)",
        ["kvm_run_mmio"] = "__typeof__(((struct kvm_run *)0)->mmio)",
        ["kvm_run_fail_entry"] = "__typeof__(((struct kvm_run *)0)->fail_entry)",
        ["kvm_run_internal"] = "__typeof__(((struct kvm_run *)0)->internal)",
        ["kvm_run_system_event"] = "__typeof__(((struct kvm_run *)0)->system_event)",
        ["termios_cc"] = "__typeof__(((struct termios *)0)->c_cc)",
        ["ifreq_name"] = "__typeof__(((struct ifreq *)0)->ifr_name)",
        ["sockaddr_data"] = "__typeof__(((struct sockaddr *)0)->sa_data)",
        ["sockaddr_un_path"] = "__typeof__(((struct sockaddr_un *)0)->sun_path)",
    };

    /// <summary>Structs of which we declare the head only, because they are never copied: KVM's own mapping holds them.</summary>
    public static IReadOnlySet<string> HeadOnly { get; } = new HashSet<string> { "kvm_run" };

    /// <summary>Fields that lie deeper in C.</summary>
    public static IReadOnlyDictionary<string, string> Fields { get; } = new Dictionary<string, string>
    {
        ["kvm_irq_routing_entry.irqchip"] = "u.irqchip",
        ["kvm_irq_routing_entry.msi"] = "u.msi",
        ["kvm_guest_debug.debugreg0"] = "arch.debugreg[0]",
    };
}
