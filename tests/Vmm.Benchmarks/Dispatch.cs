using BenchmarkDotNet.Attributes;
using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Reports;
using BenchmarkDotNet.Running;
using BenchmarkDotNet.Toolchains.InProcess.Emit;
using Vmm.Core.Bus;
using Vmm.Core.Cpu;
using Vmm.Core.Interop;
using Vmm.Core.Kvm;

namespace Vmm.Benchmarks;

/// <summary>The dispatch of one exit by itself: what vmm adds between two KVM_RUNs. 32 devices on each bus; must allocate nothing.</summary>
[MemoryDiagnoser(displayGenColumns: false)]
public unsafe class Dispatch : IDisposable
{
    private readonly KvmSystem _kvm = KvmSystem.Open();
    private KvmVm _vm = null!;
    private Vcpu _vcpu = null!;
    private kvm_run* _mmioWrite, _mmioRead, _portWrite, _nobody;

    /// <summary>Runs it; 1 where something was allocated.</summary>
    public static int Run()
    {
        IConfig config = DefaultConfig.Instance
            .AddJob(Job.Default
                .WithToolchain(InProcessEmitToolchain.Instance)
                .WithWarmupCount(5)
                .WithIterationCount(12)
                .WithIterationTime(Perfolizer.Horology.TimeInterval.FromMilliseconds(100)))
            .WithOptions(ConfigOptions.DisableLogFile);
        Summary summary = BenchmarkRunner.Run<Dispatch>(config.WithArtifactsPath(Path.Combine(Path.GetTempPath(), "vmm-benchmark-dispatch")));
        bool ok = summary.Reports.Length == 4 && summary.Reports.All(r => r.Success && r.GcStats.GetBytesAllocatedPerOperation(r.BenchmarkCase) == 0);
        Console.WriteLine(ok ? "Allocated by an exit: 0 bytes" : "FAILED: an exit allocated, or could not be measured.");
        return ok ? 0 : 1;
    }

    /// <summary>Makes a vCPU that is never started, whose exits are written by hand.</summary>
    [GlobalSetup]
    public void SetUp()
    {
        _vm = _kvm.CreateVm();
        var ports = new AddressBus("port");
        var mmio = new AddressBus("MMIO");
        for (ulong i = 0; i < 32; i++)
        {
            ports.Add(0x1000 + (i * 0x10), 8, new Register(), "register");
            mmio.Add(0xC000_0000 + (i * 0x1000), 0x1000, new Register(), "register");
        }
        KvmVcpu vcpu = _vm.CreateVcpu(0);
        _vcpu = new Vcpu(vcpu, ports, mmio, new Nobody());
        _mmioWrite = Exit(LibC.KVM_EXIT_MMIO);
        _mmioWrite->mmio = new kvm_run_mmio { phys_addr = 0xC001_0050, len = 4, is_write = 1, data = 7 };
        _mmioRead = Exit(LibC.KVM_EXIT_MMIO);
        _mmioRead->mmio = new kvm_run_mmio { phys_addr = 0xC001_0050, len = 4 };
        _nobody = Exit(LibC.KVM_EXIT_MMIO);
        _nobody->mmio = new kvm_run_mmio { phys_addr = 0xB000_0000, len = 4 };
        _portWrite = Exit(LibC.KVM_EXIT_IO);
        _portWrite->io = new kvm_run_io { direction = LibC.KVM_EXIT_IO_OUT, size = 1, count = 1, port = 0x1104, data_offset = 0xFF0 };
    }

    /// <summary>A 4-byte write to a device register.</summary>
    [Benchmark]
    public bool MmioWrite() => _vcpu.Dispatch(_mmioWrite);

    /// <summary>A 4-byte read of one.</summary>
    [Benchmark]
    public bool MmioRead() => _vcpu.Dispatch(_mmioRead);

    /// <summary>A byte to a port.</summary>
    [Benchmark]
    public bool PortWrite() => _vcpu.Dispatch(_portWrite);

    /// <summary>A read where no device is.</summary>
    [Benchmark]
    public bool MmioReadOfNobody() => _vcpu.Dispatch(_nobody);

    /// <summary>Frees the vCPU and the VM.</summary>
    [GlobalCleanup]
    public void Dispose()
    {
        _vcpu?.Dispose();
        _vm?.Dispose();
        _kvm.Dispose();
        GC.SuppressFinalize(this);
    }

    private static kvm_run* Exit(uint reason)
    {
        var run = (kvm_run*)System.Runtime.InteropServices.NativeMemory.AllocZeroed(0x1000);
        run->exit_reason = reason;
        return run;
    }

    private sealed class Nobody : IVcpuObserver
    {
        public void Ended(Vcpu vcpu, VcpuEnd end)
        {
        }
    }

    private sealed class Register : IBusDevice
    {
        private uint _value;

        public void Read(ulong offset, Span<byte> data) => data.Fill((byte)_value);

        public void Write(ulong offset, ReadOnlySpan<byte> data) => _value = data[0];
    }
}
