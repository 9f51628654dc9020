using System.Globalization;
using Vmm.Core;
using Vmm.Core.Cpu;
using Vmm.Core.Kvm;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Machine.HostCheck;

/// <summary>Finds out what this host can do.</summary>
public static class HostChecker
{
    private static readonly (int Capability, string Name)[] s_optional =
    [
        (KVM_CAP_SYNC_MMU, "KVM_CAP_SYNC_MMU"),
        (KVM_CAP_SET_GUEST_DEBUG, "KVM_CAP_SET_GUEST_DEBUG"),
        (KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"),
        (KVM_CAP_XCRS, "KVM_CAP_XCRS"),
        (KVM_CAP_TSC_CONTROL, "KVM_CAP_TSC_CONTROL"),
        (KVM_CAP_GET_TSC_KHZ, "KVM_CAP_GET_TSC_KHZ"),
        (KVM_CAP_TSC_DEADLINE_TIMER, "KVM_CAP_TSC_DEADLINE_TIMER"),
        (KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"),
        (KVM_CAP_X2APIC_API, "KVM_CAP_X2APIC_API"),
        (KVM_CAP_EXCEPTION_PAYLOAD, "KVM_CAP_EXCEPTION_PAYLOAD"),
        (KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER"),
    ];

    /// <summary>Looks at everything, and measures the speed of kernel code where a VM can be made. Takes well under a second; never throws for what it finds.</summary>
    /// <param name="device">The device to look at.</param>
    public static HostReport Check(string device = "/dev/kvm") => Check(device, new HostFacts(), SpeedProbe.MeasureInstructionsPerSecond);

    internal static HostReport Check(string device, HostFacts facts, Func<double> measure)
    {
        var report = new HostReport
        {
            Device = device,
            Module = facts.Module,
            MaxMapCount = facts.MaxMapCount,
            MemoryBytes = facts.Memory("MemTotal"),
            MemoryAvailableBytes = facts.Memory("MemAvailable"),
            HugePages = facts.HugePages(),
            Verdict = HostVerdict.Unusable,
            Next = "",
        };
        try
        {
            using KvmSystem kvm = KvmSystem.OpenUnchecked(device);
            report = report with
            {
                // OpenUnchecked accepts no other.
                ApiVersion = KVM_API_VERSION,
                Required = [.. KvmSystem.Required.Select(wanted => new HostCapability(wanted.Name, kvm.CheckExtension(wanted.Capability)))],
                Optional = [.. s_optional.Select(wanted => new HostCapability(wanted.Name, kvm.CheckExtension(wanted.Capability)))],
                MaxVcpus = kvm.MaxVcpus,
                MaxMemorySlots = kvm.CheckExtension(KVM_CAP_NR_MEMSLOTS),
            };
        }
        catch (VmmException e)
        {
            return report with { DeviceProblem = e.Message, Next = e.Message };
        }

        try
        {
            report = report with { InstructionsPerSecond = measure() };
        }
        catch (VmmException e)
        {
            report = report with { ProbeProblem = e.Message };
        }

        (HostVerdict verdict, string next) = Judge(report);
        return report with { Verdict = verdict, Next = next };
    }

    /// <summary>The verdict on what was found, and what to do next.</summary>
    internal static (HostVerdict Verdict, string Next) Judge(HostReport report)
    {
        string[] missing = [.. report.Required.Where(capability => capability.Value == 0).Select(capability => capability.Name)];
        if (missing.Length > 0)
            return (HostVerdict.Unusable, $"This host's KVM lacks {string.Join(", ", missing)}; use a newer host kernel.");
        if (report.ProbeProblem is { } problem)
            return (HostVerdict.Unusable, problem);
        if (report.InstructionsPerSecond is not { } speed || speed < SpeedProbe.EnoughPerSecond)
        {
            string measured = (report.InstructionsPerSecond / 1e6 ?? 0).ToString("F1", CultureInfo.InvariantCulture);
            return (HostVerdict.NeedsSandbox,
                $"This host's KVM emulates kernel code ({measured} million instructions/s), so stock kernels do not boot on it; boot them in the sandbox: scripts/demo does so by itself.");
        }

        return (HostVerdict.Ready, "Start a guest: vmm run --kernel PATH --initramfs PATH --cmdline console=ttyS0");
    }
}
