namespace Vmm.Core.Cpu;

/// <summary>Why a vCPU stopped for good.</summary>
internal enum VcpuEndReason
{
    /// <summary>It was told to.</summary>
    Stopped,

    /// <summary>KVM_EXIT_SHUTDOWN: a fault while delivering a double fault.</summary>
    TripleFault,

    /// <summary>KVM_EXIT_SYSTEM_EVENT: the guest asked KVM for a shutdown or a reset.</summary>
    SystemEvent,

    /// <summary>KVM_EXIT_INTERNAL_ERROR: KVM could not go on with this guest.</summary>
    InternalError,

    /// <summary>KVM_EXIT_FAIL_ENTRY: the processor refused the guest's state.</summary>
    FailedEntry,

    /// <summary>KVM_RUN failed, or exited for a reason that this program does not know.</summary>
    HostError,
}

/// <summary>How a vCPU ended.</summary>
/// <param name="Vcpu">Which one.</param>
/// <param name="Reason">Why.</param>
/// <param name="Code">Reason-dependent: suberror, hardware reason, event type, errno or exit reason.</param>
/// <param name="Detail">For the report; null where the reason says it all.</param>
internal readonly record struct VcpuEnd(int Vcpu, VcpuEndReason Reason, ulong Code, string? Detail);

/// <summary>Is told, on the vCPU's own thread, that a vCPU ended by itself. Its registers can still be read there.</summary>
internal interface IVcpuObserver
{
    /// <summary>Called at most once for each vCPU, never for <see cref="VcpuEndReason.Stopped"/>.</summary>
    void Ended(Vcpu vcpu, VcpuEnd end);
}
