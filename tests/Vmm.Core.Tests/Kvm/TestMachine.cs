using System.Collections.Concurrent;
using Vmm.Core.Boot;
using Vmm.Core.Bus;
using Vmm.Core.Cpu;
using Vmm.Core.Interop;
using Vmm.Core.Kvm;
using Vmm.Core.Memory;
using Vmm.Core.Tests.Payloads;

namespace Vmm.Core.Tests.Kvm;

/// <summary>A VM with 2 MiB of RAM, the in-kernel interrupt controllers, both buses, and vCPUs that run payloads.</summary>
internal sealed unsafe class TestMachine : IVcpuObserver, IDisposable
{
    /// <summary>Bytes of RAM at guest address 0.</summary>
    public const ulong RamSize = 2 << 20;

    /// <summary>How long a guest may take before the test is given up: no measure, only a way out of a hang.</summary>
    public static readonly TimeSpan Watchdog = TimeSpan.FromSeconds(60);

    private const ulong IdtAddress = 0x4000;

    private readonly KvmSystem _system;
    private readonly ConcurrentQueue<VcpuEnd> _ends = new();
    private readonly ManualResetEventSlim _ended = new();

    public TestMachine(int vcpus = 1, bool pit = false, GuestRamOptions ram = default, IGuestFaultHandler? faults = null)
    {
        _system = KvmSystem.Open();
        Vm = _system.CreateVm();
        Vm.SetRealModePages(0xFFFB_C000, 0xFFFB_D000);
        Vm.CreateIrqchip();
        if (pit)
            Vm.CreatePit();
        Ram = GuestRam.Allocate([(0, RamSize)], ram);
        Vm.SetMemoryRegion(0, 0, RamSize, Ram.Memory.Regions[0].Host);
        kvm_cpuid_entry2[] supported = _system.GetSupportedCpuid();
        var cpuid = new GuestCpuid(supported, vcpus, Vm.CheckExtension(LibC.KVM_CAP_TSC_DEADLINE_TIMER) > 0);
        for (int i = 0; i < vcpus; i++)
        {
            KvmVcpu vcpu = Vm.CreateVcpu(i);
            vcpu.SetCpuid(cpuid.For((uint)i));
            ModelSpecificRegisters.Apply(vcpu);
            ModelSpecificRegisters.SetLocalApicPins(vcpu);
            Vcpus.Add(new Vcpu(vcpu, Ports, Mmio, this) { Faults = faults });
        }
        Ports.Add(Payload.DonePort, 4, Done, "done");
        Ports.Add(Payload.LogPort, 1, Log, "log");
        Mmio.Add(Payload.DoneAddress, 8, Done, "done");
    }

    public KvmVm Vm { get; }

    public GuestRam Ram { get; }

    public GuestMemory Memory => Ram.Memory;

    public AddressBus Ports { get; } = new("port");

    public AddressBus Mmio { get; } = new("MMIO");

    public List<Vcpu> Vcpus { get; } = [];

    /// <summary>The boot vCPU.</summary>
    public Vcpu Boot => Vcpus[0];

    public DoneDevice Done { get; } = new();

    public LogDevice Log { get; } = new();

    /// <summary>Ends of vCPUs that were told to nobody's wish.</summary>
    public IReadOnlyCollection<VcpuEnd> Ends => _ends;

    /// <summary>Loads a payload and sets the boot vCPU to enter it.</summary>
    public TestMachine Load(byte[] code, BootEntryMode mode = BootEntryMode.Long64, ulong bootData = 0)
    {
        Memory.Write(Payload.Address, code);
        ProcessorSetup.EnterGuest(Boot.Kvm, Memory, new BootEntry(mode, Payload.Address, bootData));
        return this;
    }

    /// <summary>Loads 64-bit code that is entered in user mode (CPL 3), with all memory mapped for it.</summary>
    public TestMachine LoadUser(byte[] code)
    {
        Load(code);
        UserMode.Enter(Boot.Kvm, Memory);
        return this;
    }

    /// <summary>Makes an interrupt or exception vector run 64-bit code at an address, through a table that is set at once.</summary>
    public void SetVector(int vector, ulong handler)
    {
        ulong gate = IdtAddress + ((ulong)vector * 16);
        Memory.Write(gate, (handler & 0xFFFF) | (0x10UL << 16) | (0x8E00UL << 32) | ((handler >> 16 & 0xFFFF) << 48));
        Memory.Write(gate + 8, handler >> 32);
        Boot.Kvm.GetSregs(out kvm_sregs sregs);
        sregs.idt.@base = IdtAddress;
        sregs.idt.limit = 0xFFF;
        Boot.Kvm.SetSregs(sregs);
    }

    /// <summary>Starts the boot vCPU and waits until the payload is done; its result.</summary>
    public byte Run()
    {
        Boot.Start();
        return WaitDone();
    }

    public byte WaitDone()
    {
        Done.Wait(_ended);
        Assert.True(Done.IsSet, _ends.IsEmpty ? "The payload did not end in time." : $"The vCPU ended instead: {string.Join("; ", _ends)}");
        return Done.Result;
    }

    /// <summary>Starts the boot vCPU and waits until it ends by itself.</summary>
    public VcpuEnd RunToEnd()
    {
        Boot.Start();
        Assert.True(_ended.Wait(Watchdog), "The vCPU did not end in time.");
        Assert.True(_ends.TryPeek(out VcpuEnd end));
        return end;
    }

    void IVcpuObserver.Ended(Vcpu vcpu, VcpuEnd end)
    {
        _ends.Enqueue(end);
        _ended.Set();
    }

    public void Dispose()
    {
        foreach (Vcpu vcpu in Vcpus)
            vcpu.RequestStop();
        foreach (Vcpu vcpu in Vcpus)
            vcpu.Dispose();
        Vm.Dispose();
        Ram.Dispose();
        _system.Dispose();
        Done.Dispose();
        _ended.Dispose();
    }
}

/// <summary>Remembers the first byte that the guest wrote, and that it did.</summary>
internal sealed class DoneDevice : IBusDevice, IDisposable
{
    private readonly ManualResetEventSlim _set = new();

    public bool IsSet => _set.IsSet;

    public byte Result { get; private set; }

    public void Wait(ManualResetEventSlim orElse)
    {
        if (!_set.IsSet)
            WaitHandle.WaitAny([_set.WaitHandle, orElse.WaitHandle], TestMachine.Watchdog);
    }

    public void Read(ulong offset, Span<byte> data) => data.Fill(0xFF);

    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (_set.IsSet)
            return;
        Result = data[0];
        _set.Set();
    }

    public void Dispose() => _set.Dispose();
}

/// <summary>Keeps the bytes that the guest wrote, in order.</summary>
internal sealed class LogDevice : IBusDevice
{
    private readonly Lock _lock = new();
    private readonly List<byte> _bytes = [];

    public byte[] Bytes
    {
        get
        {
            lock (_lock)
                return [.. _bytes];
        }
    }

    public void Read(ulong offset, Span<byte> data) => data.Fill(0xE9);

    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        lock (_lock)
            _bytes.AddRange(data.ToArray());
    }

    /// <summary>Waits until it has at least so many bytes.</summary>
    public byte[] WaitFor(int count)
    {
        Assert.True(SpinWait.SpinUntil(() => Bytes.Length >= count, TestMachine.Watchdog), $"The guest logged {Convert.ToHexString(Bytes)}, not {count} bytes.");
        return Bytes;
    }
}

/// <summary>Keeps every access, and answers reads with a pattern that tells offset and byte apart.</summary>
internal sealed class AccessRecorder : IBusDevice
{
    private readonly Lock _lock = new();
    private readonly List<(bool Write, ulong Offset, int Size, ulong Value)> _all = [];

    public List<(bool Write, ulong Offset, int Size, ulong Value)> All
    {
        get
        {
            lock (_lock)
                return [.. _all];
        }
    }

    /// <summary>Answers reads; by default byte i of a read at an offset is 0x10 * (offset + i) + 1 cut to a byte.</summary>
    public Func<ulong, byte> Answer { get; init; } = at => (byte)((at << 4) + 1);

    public ulong Expect(ulong offset, int size)
    {
        ulong value = 0;
        for (int i = 0; i < size; i++)
            value |= (ulong)Answer(offset + (ulong)i) << (8 * i);
        return value;
    }

    public void Read(ulong offset, Span<byte> data)
    {
        for (int i = 0; i < data.Length; i++)
            data[i] = Answer(offset + (ulong)i);
        Add(false, offset, data);
    }

    public void Write(ulong offset, ReadOnlySpan<byte> data) => Add(true, offset, data);

    private void Add(bool write, ulong offset, ReadOnlySpan<byte> data)
    {
        ulong value = 0;
        for (int i = 0; i < data.Length; i++)
            value |= (ulong)data[i] << (8 * i);
        lock (_lock)
            _all.Add((write, offset, data.Length, value));
    }
}
