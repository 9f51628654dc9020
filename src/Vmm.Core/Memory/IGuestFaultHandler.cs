namespace Vmm.Core.Memory;

/// <summary>What became of an access of the guest to memory that the host could not give.</summary>
public enum GuestFaultAnswer
{
    /// <summary>There is no memory here that could be missing.</summary>
    NotHere,

    /// <summary>There is memory that could be missing, and none of it is now. The access may succeed when it is tried again, or not.</summary>
    Unexplained,

    /// <summary>Memory was missing, and the guest does not reach it directly any more: tried again, the access goes to the MMIO bus.</summary>
    Resolved,
}

/// <summary>
/// Has memory that the guest reaches directly and that can vanish: a file that somebody else truncates. KVM_RUN fails then (EFAULT) for
/// whoever touches what is gone.
/// </summary>
public interface IGuestFaultHandler
{
    /// <summary>
    /// Looks for what is missing, and takes it out of the guest's sight. On the thread of the vCPU that stumbled, or of who noticed that it does,
    /// with nothing locked; several may at once.
    /// </summary>
    GuestFaultAnswer Resolve();

    /// <summary>
    /// The guest stumbles on, and nothing is known to be missing: takes something that others have given out of the guest's direct reach, rather than
    /// let them end the machine with it. Likewise called.
    /// </summary>
    /// <returns>Whether there was something.</returns>
    bool GiveUp();
}
