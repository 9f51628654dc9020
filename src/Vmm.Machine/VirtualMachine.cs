using Vmm.Core;
using Vmm.Core.Boot;
using Vmm.Core.Bus;
using Vmm.Core.Cpu;
using Vmm.Devices;
using Vmm.Devices.Serial;
using Vmm.Core.Kvm;
using Vmm.Machine.Configuration;
using Vmm.Machine.Reports;

namespace Vmm.Machine;

/// <summary>Scratch.</summary>
public sealed class VirtualMachine : IVcpuObserver, IGuestEventSink, IDisposable
{
    private readonly MachineParts _parts;
    private readonly object _lock = new();
    private readonly VmConfig _config;
    private VmExit? _exit;

    /// <summary>Scratch.</summary>
    public VirtualMachine(VmConfig config, ICharacterSink serial)
    {
        _config = config;
        _parts = MachineParts.Create(config, this);
        Serial = new Uart16550A(serial, new KvmIrqLine(_parts.Vm, UartRegisters.Com1Irq));
        _parts.Ports.Add(UartRegisters.Com1Port, UartRegisters.PortCount, Serial, "serial port");
    }

    /// <summary>Scratch.</summary>
    public Uart16550A Serial { get; }

    /// <summary>Scratch.</summary>
    public void Start()
    {
        LoadedKernel kernel = KernelLoader.Load(_parts.Memory, new BootRequest
        {
            KernelPath = _config.Payload.Kernel!,
            InitramfsPath = _config.Payload.Initramfs,
            CommandLine = _config.Payload.CommandLine,
            Protocol = (Vmm.Core.Boot.BootProtocol)_config.Boot.Protocol,
            E820 = _parts.Layout.CreateE820(),
        });
        Console.Error.WriteLine(kernel.Description + " " + kernel.FallbackReason);
        _parts.Start(kernel.Entry);
    }

    /// <summary>Scratch.</summary>
    public VmExit Wait()
    {
        lock (_lock)
        {
            while (_exit == null)
                Monitor.Wait(_lock);
            return _exit;
        }
    }

    void IGuestEventSink.Signal(GuestEvent guestEvent) => End(new VmExit(VmExitReason.PowerOff));

    void IVcpuObserver.Ended(Vcpu vcpu, VcpuEnd end) => End(new VmExit(VmExitReason.TripleFault, "x", CrashReport.Build(vcpu.Kvm, _parts.Memory, end.ToString(), "")));

    private void End(VmExit exit)
    {
        lock (_lock)
        {
            _exit ??= exit;
            Monitor.PulseAll(_lock);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _parts.Dispose();
}
