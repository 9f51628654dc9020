using Vmm.Core.Boot;
using Vmm.Core.Boot.Acpi;
using Vmm.Core.Bus;
using Vmm.Core.Cpu;
using Vmm.Core.Interop;
using Vmm.Core.Memory;
using Vmm.Devices;
using Vmm.Devices.Debugging;
using Vmm.Machine.Configuration;
using Vmm.Machine.Reports;

namespace Vmm.Machine;

/// <summary>
/// One life of a machine: from power-on to the first thing that ends it. A reset of the guest ends a life; the next one starts
/// with everything made anew, so nothing of the old one can leak into it.
/// </summary>
internal sealed class MachineLife : IVcpuObserver, IGuestEventSink, IDisposable
{
    private readonly VmConfig _config;
    private readonly Func<string> _lastConsoleLines;
    private readonly Action _panicked;
    private readonly MachineParts _parts;
    private readonly MachineDevices _devices;

    // Guards _exit only; nothing else is locked while it is held.
    private readonly object _lock = new();
    private VmExit? _exit;

    internal MachineLife(VmConfig config, MachineOutside outside, Func<string> lastConsoleLines, Action panicked, BootTimer bootTimer)
    {
        _config = config;
        _lastConsoleLines = lastConsoleLines;
        _panicked = panicked;
        _parts = MachineParts.Create(config, outside.Virtio.PmemSizes, this);
        try
        {
            _devices = new MachineDevices(_parts, this, outside, bootTimer, config, GuestExited);
        }
        catch
        {
            _parts.Dispose();
            throw;
        }
    }

    internal MachineDevices Devices => _devices;

    internal IReadOnlyList<Vcpu> Vcpus => _parts.Vcpus;

    internal GuestMemory Memory => _parts.Memory;

    /// <summary>Loads the kernel and starts the vCPUs.</summary>
    internal LoadedKernel Start()
    {
        ulong rsdp = _config.Acpi.Enabled ? AcpiTables.Write(_parts.Memory, _devices.DescribeAcpi()) : 0;
        LoadedKernel kernel = KernelLoader.Load(_parts.Memory, new BootRequest
        {
            KernelPath = _config.Payload.Kernel!,
            InitramfsPath = _config.Payload.Initramfs,
            CommandLine = CommandLine(),
            Protocol = _config.Boot.Protocol,
            AcpiRsdp = rsdp,
            E820 = _parts.Layout.CreateE820(),
        });
        _parts.Start(kernel.Entry);
        return kernel;
    }

    // Without ACPI a guest finds virtio-mmio devices on its command line, or not at all.
    private string CommandLine() => _config.Acpi.Enabled
        ? _config.Payload.CommandLine
        : string.Join(' ', [_config.Payload.CommandLine, .. _devices.CommandLineFragments]).Trim();

    /// <summary>Where each vCPU stands: registers, code and, with symbols, names. Waits for each of them.</summary>
    internal string Describe(IKernelSymbols? symbols)
    {
        var text = new System.Text.StringBuilder();
        foreach (Vcpu vcpu in _parts.Vcpus)
            text.Append(vcpu.Invoke(kvm => CrashReport.Build(kvm, _parts.Memory, "where it stands", "", symbols)));
        return text.ToString();
    }

    /// <summary>Makes the vCPUs and then the devices stand still, and waits until they do.</summary>
    internal void Pause()
    {
        // First: a guest that is not let run must not be found to have hung.
        _devices.StopTime();
        foreach (Vcpu vcpu in _parts.Vcpus)
            vcpu.RequestPause();
        foreach (Vcpu vcpu in _parts.Vcpus)
            vcpu.WaitPaused();
        _devices.Pause();
    }

    /// <summary>Lets them go on.</summary>
    internal void Resume()
    {
        _devices.Resume();
        LetRun();
        _devices.ResumeTime();
    }

    /// <summary>Lets the vCPUs go on, and whoever waits for them to stand still.</summary>
    internal void LetRun()
    {
        foreach (Vcpu vcpu in _parts.Vcpus)
            vcpu.Resume();
    }

    /// <summary>Gives every vCPU a non-maskable interrupt.</summary>
    internal void SendNmi() => _parts.SendNmi();

    /// <summary>Waits for the end.</summary>
    internal VmExit Wait()
    {
        lock (_lock)
        {
            while (_exit == null)
                Monitor.Wait(_lock);
            return _exit;
        }
    }

    /// <summary>After the end: the vCPUs stop, and what they made available to the virtio console's ports is waited for until somebody has taken it.</summary>
    internal void Finish(CancellationToken cancel)
    {
        _parts.StopVcpus();
        _ = _devices.Console?.WaitUntilWritten(cancel);
    }

    /// <summary>Ends this life, unless something else did before. Any thread.</summary>
    internal void End(VmExit exit)
    {
        lock (_lock)
        {
            _exit ??= exit;
            Monitor.PulseAll(_lock);
        }
    }

    public void Dispose()
    {
        // The vCPUs first: afterwards nobody calls a device any more but its timers. Those before the interrupt lines they use.
        _parts.StopVcpus();
        _devices.Dispose();
        _parts.Dispose();
    }

    void IGuestEventSink.Signal(GuestEvent guestEvent)
    {
        switch (guestEvent)
        {
            case GuestEvent.PowerOff:
                End(new VmExit(VmExitReason.PowerOff));
                break;
            case GuestEvent.Reset:
                End(new VmExit(VmExitReason.Reboot, "The guest rebooted."));
                break;
            case GuestEvent.Panic:
                _panicked();
                if (_config.OnPanic.Action == PanicAction.Continue)
                    break;
                End(new VmExit(VmExitReason.Panic, "The guest's kernel panicked; its console says why."));
                break;
            case GuestEvent.CrashLoaded:
                // The guest goes on into its crash kernel, which will end by itself.
                break;
        }
    }

    void IVcpuObserver.Ended(Vcpu vcpu, VcpuEnd end)
    {
        switch (end.Reason)
        {
            case VcpuEndReason.SystemEvent when end.Code == LibC.KVM_SYSTEM_EVENT_RESET:
                End(new VmExit(VmExitReason.Reboot, "The guest rebooted."));
                break;
            case VcpuEndReason.SystemEvent:
                End(new VmExit(VmExitReason.PowerOff));
                break;
            case VcpuEndReason.TripleFault:
                Crash(vcpu, VmExitReason.TripleFault, $"The guest shut down its vCPU {vcpu.Id} by a triple fault.");
                break;
            case VcpuEndReason.InternalError or VcpuEndReason.FailedEntry:
                Crash(vcpu, VmExitReason.KvmInternalError, $"KVM could not go on with vCPU {vcpu.Id}: {end.Detail}.");
                break;
            default:
                Crash(vcpu, VmExitReason.HostError, $"The host could not go on with vCPU {vcpu.Id}: {end.Detail}.");
                break;
        }
    }

    private void GuestExited(uint code) =>
        End(new VmExit(VmExitReason.GuestExit, code == 0 ? "" : $"The guest ended with code {code}.") { GuestCode = code });

    private void Crash(Vcpu vcpu, VmExitReason reason, string message) =>
        End(new VmExit(reason, message, CrashReport.Build(vcpu.Kvm, _parts.Memory, message, _lastConsoleLines())));
}
