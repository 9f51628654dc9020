using Vmm.Core.Boot.Acpi;
using Vmm.Core.Bus;
using Vmm.Core.Kvm;
using Vmm.Core.Memory;
using Vmm.Devices;
using Vmm.Devices.Acpi;
using Vmm.Devices.Debugging;
using Vmm.Devices.I8042;
using Vmm.Devices.Pci;
using Vmm.Devices.Power;
using Vmm.Devices.Pvpanic;
using Vmm.Devices.Rtc;
using Vmm.Devices.Serial;
using Vmm.Devices.Watchdog;
using Vmm.Machine.Configuration;
using Vmm.Virtio;
using Vmm.Virtio.Devices.Console;
using Vmm.Virtio.Transport;

namespace Vmm.Machine;

/// <summary>The devices that every machine has, put on its buses, and what ACPI says of them. This is where devices are registered.</summary>
internal sealed class MachineDevices : IDisposable
{
    private const ushort DelayPort = 0xED;
    private const ushort PostCodePortNumber = 0x80;
    private const ushort DebugPortNumber = 0xE9;

    private readonly MachineParts _parts;
    private readonly List<IAcpiDescribed> _acpi = [];
    private readonly AcpiPm _power;
    private readonly CmosRtc _rtc;
    private readonly I8042Controller _keyboard;
    private readonly PciBus _pci = new();
    private readonly KvmInterruptRouter _router;
    private readonly VirtioSlots _slots;
    private I6300EsbWatchdog? _watchdog;

    /// <summary>Makes them.</summary>
    /// <param name="parts">Whose buses and interrupt lines they are put on.</param>
    /// <param name="events">Told of power-off, reset and panic.</param>
    /// <param name="outside">The other ends of consoles and devices.</param>
    /// <param name="bootTimer">Told of the guest's boot marks.</param>
    /// <param name="config">Which of them there are, and what the watchdog does when the guest does not keep it quiet.</param>
    /// <param name="exited">Told the code with which the guest ends the machine.</param>
    internal MachineDevices(MachineParts parts, IGuestEventSink events, MachineOutside outside, BootTimer bootTimer, VmConfig config, Action<uint> exited)
    {
        _parts = parts;
        Serial = AddSerialPort(outside.Serial);
        _rtc = AddClock();
        _keyboard = AddKeyboardController(events);
        _power = AddPowerManagement(events);
        AddPvpanic(events);
        AddDebugging(outside.Debug, bootTimer);
        if (config.DebugExit.Enabled)
            parts.Ports.Add(ExitPort.Port, ExitPort.Length, new ExitPort(exited), "the exit port");
        AddPci(events);
        _router = new KvmInterruptRouter(parts.Vm);
        _slots = new VirtioSlots(parts, _pci, _router, outside.Report, outside.Threads.Relay);
        try
        {
            AddVirtio(outside);
            AddWatchdog(config.Watchdog, events, outside);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>COM1.</summary>
    internal Uart16550A Serial { get; }

    /// <summary>The virtio console; null when there is none.</summary>
    internal ConsoleDevice? Console { get; private set; }

    /// <summary>Every virtio device.</summary>
    internal IReadOnlyList<VirtioDevice> Virtio => [.. _slots.Devices];

    /// <summary>A virtio device on its bus; null where there is none of that name.</summary>
    internal IVirtioTransport? Find(string id) => _slots.Transports.FirstOrDefault(transport => transport.Device.Id == id);

    /// <summary>What a guest without ACPI must be told on its command line.</summary>
    internal IEnumerable<string> CommandLineFragments => _slots.CommandLineFragments;

    /// <summary>Presses the ACPI power button; false when the guest does not listen to it.</summary>
    internal bool PressPowerButton() => _power.PressPowerButton();

    /// <summary>The vCPUs are about to stand still: time does so for the devices that act on it by themselves.</summary>
    internal void StopTime() => _watchdog?.Pause();

    /// <summary>The vCPUs go on.</summary>
    internal void ResumeTime() => _watchdog?.Resume();

    /// <summary>Makes the virtio devices stand still, and waits until they do.</summary>
    internal void Pause() => _slots.Pause();

    /// <summary>Lets them go on.</summary>
    internal void Resume() => _slots.Resume();

    /// <summary>Presses Ctrl-Alt-Del; false when the guest does not listen to its keyboard.</summary>
    internal bool PressCtrlAltDelete() => _keyboard.SendCtrlAltDel();

    /// <summary>What the ACPI tables are to say of this machine.</summary>
    internal AcpiDescription DescribeAcpi() => new()
    {
        ApicIds = [.. _parts.Vcpus.Select(vcpu => (uint)vcpu.Id)],
        SciGsi = AcpiPmRegisters.SciIrq,
        // KVM's default routing takes the 8254's line straight to input 0.
        TimerGsi = 0,
        // The timer is there, but not told of: Linux would spend milliseconds of its boot on checking it, which has kvm-clock.
        PmTimerPort = null,
        Ecam = EcamOfBus0,
        Devices = [.. _acpi, DescribePci(), .. _slots.Acpi],
    };

    public void Dispose()
    {
        _slots.Dispose();
        _watchdog?.Dispose();
        _power.Dispose();
        _rtc.Dispose();
    }

    private static AddressRange EcamOfBus0 => new(MemoryLayout.Ecam.Start, PciEcam.LengthPerBus);

    private KvmIrqLine Line(uint gsi) => new(_parts.Vm, gsi);

    private Uart16550A AddSerialPort(ICharacterSink sink)
    {
        var uart = new Uart16550A(sink, Line(UartRegisters.Com1Irq));
        _parts.Ports.Add(UartRegisters.Com1Port, UartRegisters.PortCount, uart, "the serial port");
        _acpi.Add(new SerialPortAcpi(0, UartRegisters.Com1Port, UartRegisters.Com1Irq));
        return uart;
    }

    private CmosRtc AddClock()
    {
        IReadOnlyList<AddressRange> ram = _parts.Layout.Ram;
        var rtc = new CmosRtc(
            new CmosConfiguration { MemoryBelow4GiB = ram[0].Length, MemoryAbove4GiB = ram.Count > 1 ? ram[1].Length : 0 },
            TimeProvider.System,
            Line(CmosRegisters.Irq));
        _parts.Ports.Add(CmosRegisters.IndexPort, CmosRegisters.PortCount, rtc, "the CMOS clock");
        _acpi.Add(new RtcAcpi(CmosRegisters.Irq));
        return rtc;
    }

    private I8042Controller AddKeyboardController(IGuestEventSink events)
    {
        var controller = new I8042Controller(Line(I8042Registers.KeyboardIrq), events);
        _parts.Ports.Add(I8042Registers.DataPort, 1, controller.DataPort, "the keyboard controller's data port");
        _parts.Ports.Add(I8042Registers.CommandPort, 1, controller.CommandPort, "the keyboard controller's command port");
        _acpi.Add(new KeyboardControllerAcpi(I8042Registers.KeyboardIrq));
        return controller;
    }

    private AcpiPm AddPowerManagement(IGuestEventSink events)
    {
        var power = new AcpiPm(Line(AcpiPmRegisters.SciIrq), events, TimeProvider.System);
        _parts.Ports.Add(AcpiPmRegisters.Pm1aEventPort, AcpiPmRegisters.PortCount, power, "ACPI power management");
        return power;
    }

    private void AddPvpanic(IGuestEventSink events)
    {
        _parts.Ports.Add(PvpanicDevice.Port, PvpanicDevice.Length, new PvpanicDevice(events), "pvpanic");
        _acpi.Add(new PvpanicAcpi(PvpanicDevice.Port));
    }

    private void AddDebugging(ICharacterSink debug, BootTimer bootTimer)
    {
        _parts.Ports.Add(DebugPortNumber, 1, new DebugPort(debug), "the debug port");
        _parts.Ports.Add(PostCodePortNumber, 1, new PostCodePort(bootTimer), "the POST code port");
        _parts.Ports.Add(DelayPort, 1, new IgnoredPort(), "the delay port");
        _parts.Mmio.Add(BootTimer.Address, BootTimer.Length, bootTimer, "the boot timer");
    }

    private void AddVirtio(MachineOutside outside)
    {
        var around = new DeviceSurroundings(_parts.Layout, _parts.Ram, _parts.Slots, _parts.SharedMemory, outside.Threads, outside.Report);
        outside.Threads.Begin();
        foreach (VirtioPlan plan in outside.Virtio.Plans)
        {
            VirtioDevice device = plan.Make(around);
            device.WithheldFeatures = plan.Withheld;
            Console ??= device as ConsoleDevice;
            _slots.Add(device, plan.Bus);
        }
    }

    private void AddPci(IGuestEventSink events)
    {
        _pci.Add(0, 0, new PciHostBridge(), "the host bridge");
        _parts.Ports.Add(PciRegisters.ConfigAddressPort, 8, new PciConfigPorts(_pci, new ResetRegister(events)), "PCI configuration");
        _parts.Mmio.Add(EcamOfBus0.Start, EcamOfBus0.Length, new PciEcam(_pci), "PCI Express configuration");
        _acpi.Add(new MotherboardAcpi { Ecam = EcamOfBus0 });
    }

    private void AddWatchdog(Configuration.WatchdogConfig config, IGuestEventSink events, MachineOutside outside)
    {
        if (WatchdogResponse.ActionOf(config.Reaction) is not { } action)
            return;
        _watchdog = new I6300EsbWatchdog(new Devices.Watchdog.WatchdogConfig(action, outside.WatchdogExpired), _parts.Mmio, new WatchdogResponse(_parts, events, outside), TimeProvider.System);
        outside.WatchdogExpired = false;
        _pci.AddAtFreeDevice(_watchdog, "the watchdog");
    }

    private PciHostBridgeAcpi DescribePci()
    {
        int[] devices = [.. _pci.Functions.Select(function => function.Device).Where(device => device != 0).Distinct()];
        return new PciHostBridgeAcpi
        {
            Window32 = _slots.Window32,
            Window64 = _slots.Window64,
            LastBus = 0,
            Interrupts = PciInterruptRoute.Swizzle(devices, VirtioSlots.FirstPciGsi),
        };
    }
}
