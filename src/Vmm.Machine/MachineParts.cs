using Vmm.Core;
using Vmm.Core.Boot;
using Vmm.Core.Bus;
using Vmm.Core.Cpu;
using Vmm.Core.Interop;
using Vmm.Core.Kvm;
using Vmm.Core.Memory;
using Vmm.Machine.Configuration;
using Vmm.Virtio.SharedMemory;

namespace Vmm.Machine;

/// <summary>
/// A machine's processors, memory and buses, made in the one order that KVM accepts: the VM, its interrupt controllers, memory,
/// vCPUs. Owns them, and takes them apart in the reverse order.
/// </summary>
internal sealed class MachineParts : IDisposable
{
    private readonly KvmSystem _kvm;
    private readonly List<Vcpu> _vcpus = [];
    private GuestRam? _ram;
    private FaultWatch? _faultWatch;

    private MachineParts(KvmSystem kvm)
    {
        _kvm = kvm;
        Vm = kvm.CreateVm();
        Slots = new KvmMemorySlots(Vm);
    }

    internal KvmVm Vm { get; }

    internal KvmMemorySlots Slots { get; }

    /// <summary>The guest's memory that can vanish while it runs.</summary>
    internal GuestFaults Faults { get; } = new();

    /// <summary>How many mappings all shared windows of the machine may have.</summary>
    internal SharedMemoryQuota SharedMemory { get; } = SharedMemoryQuota.ForMachine();

    internal AddressBus Ports { get; } = new("port");

    internal AddressBus Mmio { get; } = new("MMIO");

    internal MemoryLayout Layout { get; private set; } = null!;

    internal GuestMemory Memory => Ram.Memory;

    internal GuestRam Ram => _ram!;

    internal IReadOnlyList<Vcpu> Vcpus => _vcpus;

    /// <summary>Makes them; nothing runs yet.</summary>
    /// <exception cref="VmmException">The configuration does not fit this host, or the host refuses.</exception>
    internal static MachineParts Create(VmConfig config, IReadOnlyList<ulong> pmemSizes, IVcpuObserver observer)
    {
        KvmSystem kvm = KvmSystem.Open();
        MachineParts? parts = null;
        try
        {
            if (config.Cpus.EffectiveMax > kvm.MaxVcpus)
                throw VmmException.Configuration($"--cpus: {config.Cpus.EffectiveMax} vCPUs are more than this host's KVM allows, {kvm.MaxVcpus}; ask for fewer.");
            config.Memory.CheckAgainstHost((ulong)LibC.sysconf(LibC._SC_PHYS_PAGES) * (ulong)LibC.sysconf(LibC._SC_PAGESIZE));
            parts = new MachineParts(kvm);
            parts.Build(config, pmemSizes, observer);
            return parts;
        }
        catch
        {
            if (parts != null)
                parts.Dispose();
            else
                kvm.Dispose();
            throw;
        }
    }

    /// <summary>Starts the vCPUs at a kernel's entry; the others wait for the first one to wake them.</summary>
    internal void Start(BootEntry entry)
    {
        ProcessorSetup.EnterGuest(_vcpus[0].Kvm, Memory, entry);
        if (!Faults.IsEmpty)
            _faultWatch = FaultWatch.Start(Faults, _vcpus, TimeProvider.System);
        foreach (Vcpu vcpu in _vcpus)
            vcpu.Start();
    }

    /// <summary>Gives every vCPU a non-maskable interrupt.</summary>
    internal void SendNmi()
    {
        foreach (Vcpu vcpu in _vcpus)
        {
            vcpu.Invoke(static kvm =>
            {
                kvm.Nmi();
                return true;
            });
        }
    }

    /// <summary>Ends the vCPUs, and waits until they have.</summary>
    internal void StopVcpus()
    {
        foreach (Vcpu vcpu in _vcpus)
            vcpu.RequestStop();
        foreach (Vcpu vcpu in _vcpus)
            vcpu.Join();
        _faultWatch?.Dispose();
    }

    public void Dispose()
    {
        StopVcpus();
        foreach (Vcpu vcpu in _vcpus)
            vcpu.Dispose();
        Vm.Dispose();
        _ram?.Dispose();
        _kvm.Dispose();
    }

    private void Build(VmConfig config, IReadOnlyList<ulong> pmemSizes, IVcpuObserver observer)
    {
        kvm_cpuid_entry2[] supported = _kvm.GetSupportedCpuid();
        Layout = MemoryLayout.Create(config.Memory.Size, GuestCpuid.PhysicalAddressBits(supported), config.Memory.HotplugSize, pmemSizes);
        if (config.Cpus.EffectiveMax > 255)
            Vm.TryEnableCapability(LibC.KVM_CAP_X2APIC_API, LibC.KVM_X2APIC_API_USE_32BIT_IDS | LibC.KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);
        Vm.SetRealModePages(MemoryLayout.KvmIdentityMap.Start, MemoryLayout.KvmTss.Start);
        Vm.CreateIrqchip();
        Vm.CreatePit();
        MapMemory(config.Memory);
        var cpuid = new GuestCpuid(supported, config.Cpus.Boot, _kvm.CheckExtension(LibC.KVM_CAP_TSC_DEADLINE_TIMER) > 0);
        for (int id = 0; id < config.Cpus.Boot; id++)
        {
            var vcpu = new Vcpu(Vm.CreateVcpu(id), Ports, Mmio, observer) { Affinity = CpuAffinity.Of(config.Cpus.Affinity, id), Faults = Faults };
            _vcpus.Add(vcpu);
            vcpu.Kvm.SetCpuid(cpuid.For((uint)id));
            ModelSpecificRegisters.Apply(vcpu.Kvm);
            ModelSpecificRegisters.SetLocalApicPins(vcpu.Kvm);
        }
    }

    // The layout's window is whole gibibytes; the memory in it is as much as was asked for.
    private AddressRange Hotplug(MemoryConfig memory) => new(Layout.Hotplug.Start, memory.HotplugSize);

    private void MapMemory(MemoryConfig memory)
    {
        var options = new GuestRamOptions(memory.Shared, memory.HugePages, memory.HugePages ? memory.HugePageSize : 0, memory.Prefault);
        _ram = GuestRam.Allocate([.. Layout.Ram.Select(range => (range.Start, range.Length))], options, Hotplug(memory));
        foreach (GuestRegion region in _ram.Memory.Regions)
            Slots.Map(region.Start, region.Length, region.HostAddress);
    }
}
