using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Kvm;

/// <summary>Turns a failed KVM call into an error for people.</summary>
internal static class KvmError
{
    /// <summary>Throws for a call that returned a negative value.</summary>
    internal static int Check(int result, string doing)
    {
        if (result < 0)
            throw Last(doing);
        return result;
    }

    /// <summary>The error of the call that has just failed.</summary>
    internal static VmmException Last(string doing) => From(errno, doing);

    /// <summary>The error for an errno.</summary>
    internal static VmmException From(int error, string doing)
    {
        string next = error switch
        {
            ENOMEM => " The host is out of memory, or a limit on locked or mapped memory is too low.",
            EMFILE => " Raise the limit on open files (ulimit -n).",
            EINVAL or ENOTTY or EOPNOTSUPP => " This host's KVM does not support it; 'vmm check' lists what is missing.",
            EBUSY => " Another hypervisor may be using the processor's virtualization extensions.",
            _ => "",
        };
        return VmmException.Host($"Cannot {doing}: {strerror(error)} (errno {error}).{next}");
    }
}
