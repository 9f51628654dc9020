namespace Vmm.Machine.HostCheck;

/// <summary>What the host is good for.</summary>
public enum HostVerdict
{
    /// <summary>Stock kernels run here.</summary>
    Ready,

    /// <summary>KVM is there, but it emulates kernel code: stock kernels need the sandbox.</summary>
    NeedsSandbox,

    /// <summary>No machine can be made.</summary>
    Unusable,
}

/// <summary>A capability of KVM.</summary>
/// <param name="Name">As in linux/kvm.h.</param>
/// <param name="Value">What KVM_CHECK_EXTENSION answered; 0 where it is not there.</param>
public readonly record struct HostCapability(string Name, int Value);

/// <summary>Huge pages of one size.</summary>
/// <param name="Size">In bytes.</param>
/// <param name="Total">How many the host has reserved.</param>
/// <param name="Free">How many of them nobody uses.</param>
public readonly record struct HostHugePages(ulong Size, long Total, long Free);

/// <summary>What was found out about a host. Numbers that could not be had are null.</summary>
public sealed record HostReport
{
    /// <summary>The device that was opened.</summary>
    public required string Device { get; init; }

    /// <summary>Why it cannot be used, as a sentence with the remedy; null where it can.</summary>
    public string? DeviceProblem { get; init; }

    /// <summary>KVM_GET_API_VERSION.</summary>
    public int? ApiVersion { get; init; }

    /// <summary>The module behind it: kvm_intel, kvm_amd, kvm_pvm; null when none of them is loaded.</summary>
    public string? Module { get; init; }

    /// <summary>What a machine cannot do without.</summary>
    public IReadOnlyList<HostCapability> Required { get; init; } = [];

    /// <summary>What makes a machine better.</summary>
    public IReadOnlyList<HostCapability> Optional { get; init; } = [];

    /// <summary>The most vCPUs of one machine.</summary>
    public int? MaxVcpus { get; init; }

    /// <summary>The most memory slots of one machine.</summary>
    public int? MaxMemorySlots { get; init; }

    /// <summary>vm.max_map_count: the most mappings of a process.</summary>
    public long? MaxMapCount { get; init; }

    /// <summary>MemTotal in bytes.</summary>
    public ulong? MemoryBytes { get; init; }

    /// <summary>MemAvailable in bytes.</summary>
    public ulong? MemoryAvailableBytes { get; init; }

    /// <summary>The reserved huge pages of each size.</summary>
    public IReadOnlyList<HostHugePages> HugePages { get; init; } = [];

    /// <summary>How many instructions of kernel code (CPL 0) ran in a second, as measured.</summary>
    public double? InstructionsPerSecond { get; init; }

    /// <summary>Why they could not be measured.</summary>
    public string? ProbeProblem { get; init; }

    /// <summary>What the host is good for.</summary>
    public required HostVerdict Verdict { get; init; }

    /// <summary>What to do next, in a sentence.</summary>
    public required string Next { get; init; }
}
