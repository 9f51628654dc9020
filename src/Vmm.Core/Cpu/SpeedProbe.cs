using System.Diagnostics;
using Vmm.Core.Interop;
using Vmm.Core.Kvm;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Cpu;

/// <summary>
/// How fast this host's KVM runs guest kernel code: a short counting loop in a throw-away VM. A KVM that runs on hardware takes
/// microseconds; one that emulates privileged code instruction by instruction takes tens of milliseconds, and is no place to boot a stock kernel.
/// </summary>
public static unsafe class SpeedProbe
{
    /// <summary>Below this many instructions a second a stock kernel is not booted: it would take minutes and may meet instructions that are not emulated.</summary>
    public const double EnoughPerSecond = 5e6;

    // Enough that entering the guest does not count, few enough that an emulated loop takes tens of milliseconds only.
    private const int Iterations = 32768;
    private const int Attempts = 3;
    private const int InstructionsPerIteration = 2;
    private const ulong CodeAddress = 0x1000;

    /// <summary>Instructions a second, measured now.</summary>
    /// <exception cref="VmmException">KVM cannot be used at all.</exception>
    public static double MeasureInstructionsPerSecond()
    {
        using KvmSystem kvm = KvmSystem.OpenUnchecked();
        using KvmVm vm = kvm.CreateVm();
        using HostMapping page = HostMapping.TryMap(0x1000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)
            ?? throw VmmException.Host($"Cannot allocate a page for the speed probe: {strerror(errno)}.");
        // Real mode: mov ecx, Iterations; again: dec ecx; jnz again; hlt.
        ReadOnlySpan<byte> code = [0x66, 0xB9, Iterations & 0xFF, (Iterations >> 8) & 0xFF, Iterations >> 16, 0, 0x66, 0x49, 0x75, 0xFC, 0xF4];
        code.CopyTo(new Span<byte>(page.Address, 0x1000));
        vm.SetMemoryRegion(0, CodeAddress, 0x1000, page.Address);
        using KvmVcpu vcpu = vm.CreateVcpu(0);
        vcpu.GetSregs(out kvm_sregs sregs);
        sregs.cs.@base = 0;
        sregs.cs.selector = 0;
        vcpu.SetSregs(sregs);
        // The first run also pays for KVM's own set-up; on a busy host another one may be disturbed. The best one tells.
        double best = 0;
        for (int attempt = 0; attempt < Attempts && best < EnoughPerSecond * 4; attempt++)
            best = Math.Max(best, RunOnce(vcpu));
        return best;
    }

    private static double RunOnce(KvmVcpu vcpu)
    {
        vcpu.SetRegs(new kvm_regs { rip = CodeAddress, rflags = 2 });
        long start = Stopwatch.GetTimestamp();
        int error;
        do
        {
            error = vcpu.Run();
        }
        while (error == EINTR);
        double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        bool halted = error == 0 && vcpu.Shared->exit_reason == KVM_EXIT_HLT;
        return halted ? Iterations * InstructionsPerIteration / seconds : 0;
    }
}
