using System.Buffers.Binary;
using Vmm.Core;
using Vmm.Core.Bus;
using Vmm.Core.Events;
using Vmm.Core.Memory;
using Vmm.Devices.Pci;
using Vmm.Virtio.SharedMemory;
using static Vmm.Devices.Pci.PciRegisters;

namespace Vmm.Virtio.Transport.Pci;

/// <summary>
/// A device as a PCI function without a legacy interface (VIRTIO 1.3 §4.1). Its doorbells are ioeventfds wherever the guest puts its BAR,
/// its MSI-X vectors irqfds. This part is its configuration space and its place in memory.
/// </summary>
internal sealed partial class VirtioPciTransport : IPciFunction, IVirtioTransport
{
    private readonly TransportCore _core;
    private readonly VirtioPciInterrupts _interrupts;
    private readonly VirtioPciLayout _layout;
    private readonly PciConfigurationSpace _configuration;
    private readonly int _msixCapability;
    private readonly int _accessCapability;
    private readonly PciMemory _pciMemory;
    private readonly IDoorbellRegistrar _doorbells;
    private readonly bool[] _connected;
    private readonly Bar[] _bars;
    private bool _saidMisplaced;
    private bool _disposed;

    /// <summary>Makes the function, and owns the device from then on. The caller assigns its BARs and puts it on its bus.</summary>
    /// <param name="device">The device.</param>
    /// <param name="memory">What its buffers may lie in.</param>
    /// <param name="pciMemory">What its BARs may lie in.</param>
    /// <param name="router">Makes its MSI-X vectors: one for each queue, and one for the configuration.</param>
    /// <param name="line">INTA.</param>
    /// <param name="doorbells">Connects doorbells.</param>
    /// <param name="log">Takes lines about the device.</param>
    /// <param name="relay">
    /// Gives the thread that relays interrupts of a device with <see cref="VirtioDevice.HasExternalCalls"/> when its driver does without
    /// MSI-X; asked when one does, and needed for such devices only.
    /// </param>
    /// <exception cref="VmmException">The device does not fit a function, or the host has no more interrupts or descriptors.</exception>
    internal VirtioPciTransport(
        VirtioDevice device,
        GuestMemory memory,
        PciMemory pciMemory,
        IInterruptRouter router,
        IInterruptLine line,
        IDoorbellRegistrar doorbells,
        Action<string>? log = null,
        Func<EventLoop>? relay = null)
    {
        if (device.HasExternalCalls)
            ArgumentNullException.ThrowIfNull(relay);
        int queues = device.QueueSizes.Count;
        int vectors = Math.Min(queues + 1, MsixTable.MaximumVectors);
        _layout = new VirtioPciLayout(device, vectors);
        (_configuration, _msixCapability, _accessCapability) = VirtioPciCapabilities.Build(device, _layout, vectors);
        _interrupts = new VirtioPciInterrupts(queues, new MsixTable(vectors, router), line);
        try
        {
            _core = new TransportCore(device, memory, _interrupts, log);
        }
        catch
        {
            _interrupts.Dispose();
            throw;
        }
        if (device.HasExternalCalls)
            _interrupts.UseCalls(CallsOf(_core), relay!, _core.NeedsReset);
        _pciMemory = pciMemory;
        _doorbells = doorbells;
        _connected = new bool[queues];
        _bars =
        [
            new Bar(VirtioPciLayout.RegistersBar, _layout.RegistersSize, new RegistersBar(this)),
            new Bar(VirtioPciLayout.SharedMemoryBar, _layout.SharedMemorySize, new SharedMemoryBar(device.SharedMemory, _layout.SharedMemory)),
        ];
        ConfigureInterrupts();
    }

    /// <inheritdoc/>
    public VirtioDevice Device => _core.Device;

    /// <inheritdoc/>
    public VirtioBus Bus => VirtioBus.Pci;

    /// <inheritdoc/>
    public bool IsRunning => _core.IsRunning;

    /// <summary>Bytes that BAR 0 asks for.</summary>
    internal ulong RegistersSize => _layout.RegistersSize;

    /// <summary>Bytes that BAR 2 asks for; 0 where there is none.</summary>
    internal ulong SharedMemorySize => _layout.SharedMemorySize;

    /// <summary>
    /// Says where the BARs are after a reset, as firmware would: multiples of their sizes. They answer once the guest switches memory on.
    /// </summary>
    internal void AssignBars(ulong registers, ulong? sharedMemory = null)
    {
        using (_core.Gate.Enter())
        {
            _bars[0].Assigned = registers;
            _bars[1].Assigned = sharedMemory ?? 0;
            WriteAssignedBars();
        }
    }

    /// <inheritdoc/>
    public void ReadConfiguration(int offset, Span<byte> data)
    {
        using (_core.Gate.Enter())
        {
            if (TouchesAccessData(offset, data.Length))
                ReadThroughCapability();
            _configuration.SetInterruptStatus(_interrupts.IsLinePending);
            _configuration.Read(offset, data);
        }
    }

    /// <inheritdoc/>
    public void WriteConfiguration(int offset, ReadOnlySpan<byte> data)
    {
        using (_core.Gate.Enter())
        {
            bool wasMaster = IsBusMaster;
            PciConfigurationChanges changes = _configuration.Write(offset, data);
            // Only where it is switched off: drivers that never switch it on are served all the same. Linux does so before kexec, and
            // resets no device: frames that still came would be written into the memory of the next kernel.
            if (IsBusMaster != wasMaster)
                _core.SetSilenced(wasMaster);
            if ((changes & (PciConfigurationChanges.Command | PciConfigurationChanges.Bars)) != 0)
                PlaceBars();
            if ((changes & (PciConfigurationChanges.Command | PciConfigurationChanges.Capabilities)) != 0)
                ConfigureInterrupts();
            if (TouchesAccessData(offset, data.Length))
                WriteThroughCapability();
        }
    }

    /// <inheritdoc cref="IPciFunction.Reset"/>
    public void Reset()
    {
        using (_core.Gate.Enter())
        {
            _core.Reset();
            _configuration.Reset();
            _interrupts.Msix.Clear();
            WriteAssignedBars();
            PlaceBars();
            ConfigureInterrupts();
        }
    }

    /// <inheritdoc/>
    public void BeginPause()
    {
        using (_core.Gate.Enter())
            _core.BeginPause();
    }

    /// <inheritdoc/>
    public void Pause() => _core.Pause();

    /// <inheritdoc/>
    public void Resume()
    {
        using (_core.Gate.Enter())
            _core.Resume();
    }

    /// <inheritdoc/>
    public VirtioTransportState Save()
    {
        using (_core.Gate.Enter())
        {
            (byte isr, ushort vector, ushort[] vectors) = _interrupts.Save();
            return _core.Save() with { Pci = new VirtioPciState(_configuration.Save(), isr, vector, vectors, _interrupts.Msix.Save()) };
        }
    }

    /// <inheritdoc/>
    public void Restore(VirtioTransportState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        if (state.Pci is not { } pci || pci.QueueVectors.Length != _connected.Length)
            throw VmmException.Configuration($"Cannot restore {Device.Id}: it was not on the PCI bus, or not with the same queues, when it was saved. Restore with the configuration that it was saved with.");
        using (_core.Gate.Enter())
        {
            _core.Check(state);
            _configuration.Restore(pci.Configuration);
            PlaceBars();
            ConfigureInterrupts();
            _interrupts.Msix.Restore(pci.Msix, Device.Id);
            _interrupts.Restore(pci.InterruptStatus, pci.ConfigurationVector, pci.QueueVectors);
            _core.Restore(state);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        using (_core.Gate.Enter())
        {
            if (_disposed)
                return;
            _disposed = true;
            foreach (Bar bar in _bars)
                Move(bar, null);
        }
        _core.Dispose();
        _interrupts.Dispose();
    }

    private bool IsBusMaster => (_configuration.ReadUInt16(Command) & CommandBusMaster) != 0;

    private static EventNotifier[] CallsOf(TransportCore core)
    {
        var calls = new EventNotifier[core.Queues.Length];
        for (int i = 0; i < calls.Length; i++)
            calls[i] = core.Queues[i].Call!;
        return calls;
    }

    private void WriteAssignedBars()
    {
        Span<byte> address = stackalloc byte[sizeof(ulong)];
        foreach (Bar bar in _bars)
        {
            if (bar.Size == 0)
                continue;
            BinaryPrimitives.WriteUInt64LittleEndian(address, bar.Assigned);
            _configuration.Write(Bar0 + (4 * bar.Index), address);
        }
    }

    private void ConfigureInterrupts()
    {
        ushort control = _configuration.ReadUInt16(_msixCapability + VirtioPciCapabilities.MessageControl);
        _interrupts.Configure(
            (control & VirtioPciCapabilities.MsixEnable) != 0,
            (control & VirtioPciCapabilities.MsixFunctionMask) != 0,
            (_configuration.ReadUInt16(Command) & CommandInterruptDisable) != 0);
    }

    /// <summary>Lets each BAR answer where the guest wants it now.</summary>
    private void PlaceBars()
    {
        // All that move leave first: one may go to where another was.
        foreach (Bar bar in _bars)
        {
            if (Wanted(bar) != bar.Wanted)
                Move(bar, null);
        }
        foreach (Bar bar in _bars)
            Move(bar, Wanted(bar));

        ulong? Wanted(Bar bar) => bar.Size != 0 && _configuration.GetBar(bar.Index) is { Enabled: true } now ? now.Address : null;
    }

    private void Move(Bar bar, ulong? to)
    {
        if (bar.Wanted == to)
            return;
        if (bar.Placed is { } old)
        {
            if (bar.Index == VirtioPciLayout.RegistersBar)
                DisconnectDoorbells(old);
            else
                PlaceSharedMemory(null);
            _pciMemory.Release(old);
            bar.Placed = null;
        }
        bar.Wanted = to;
        if (to is not { } start)
            return;
        if (_pciMemory.TryClaim(new AddressRange(start, bar.Size), bar.Behind, Device.Id) is { } problem)
        {
            // A guest that sizes a BAR with memory switched on comes here too. Once is enough to explain a device that does not answer.
            if (!_saidMisplaced)
                _core.Log($"BAR {bar.Index} does not answer at 0x{start:x}, where the guest put it: {problem}");
            _saidMisplaced = true;
            return;
        }
        bar.Placed = start;
        if (bar.Index == VirtioPciLayout.RegistersBar)
            ConnectDoorbells(start);
        else
            PlaceSharedMemory(start);
    }

    private void ConnectDoorbells(ulong registers)
    {
        // One that is not connected is served by the register.
        for (int i = 0; i < _connected.Length; i++)
            _connected[i] = _doorbells.TryConnect(_core.Queues[i].Doorbell, DoorbellAddress(registers, i), 0, null);
    }

    private void DisconnectDoorbells(ulong registers)
    {
        for (int i = 0; i < _connected.Length; i++)
        {
            if (_connected[i])
                _doorbells.Disconnect(_core.Queues[i].Doorbell, DoorbellAddress(registers, i), 0, null);
            _connected[i] = false;
        }
    }

    private static ulong DoorbellAddress(ulong registers, int queue) =>
        registers + VirtioPciLayout.Notify + (ulong)(queue * VirtioPciRegisters.NotifyMultiplier);

    private void PlaceSharedMemory(ulong? bar)
    {
        for (int i = 0; i < _layout.SharedMemory.Length; i++)
        {
            try
            {
                Device.SharedMemory[i].Place(bar + _layout.SharedMemory[i]);
            }
            catch (Exception e)
            {
                _core.NeedsReset($"the host cannot put its shared memory where the guest wants it: {e.Message}");
            }
        }
    }

    /// <summary>One BAR, and where it is.</summary>
    private sealed class Bar(int index, ulong size, IBusDevice behind)
    {
        public readonly int Index = index;
        public readonly ulong Size = size;
        public readonly IBusDevice Behind = behind;
        public ulong Assigned;

        /// <summary>Where the guest wants it; null for nowhere.</summary>
        public ulong? Wanted;

        /// <summary>Where it answers: there, or nowhere.</summary>
        public ulong? Placed;
    }
}
