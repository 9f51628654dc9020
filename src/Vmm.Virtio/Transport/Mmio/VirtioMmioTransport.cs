using System.Buffers.Binary;
using Vmm.Core;
using Vmm.Core.Bus;
using Vmm.Core.Memory;
using Vmm.Virtio.SharedMemory;
using static Vmm.Virtio.Transport.Mmio.VirtioMmioRegisters;

namespace Vmm.Virtio.Transport.Mmio;

/// <summary>A device in a virtio-mmio slot (VIRTIO 1.3 §4.2), version 2. Its doorbells are ioeventfds and its interrupt an irqfd.</summary>
/// <remarks>
/// The interrupt is an edge each time, also where its bit is still set in InterruptStatus: a driver that has lost one (to a masked pin)
/// gets over it with the next.
/// <para>
/// A device whose queues others serve (<see cref="VirtioDevice.HasExternalCalls"/>) has their eventfds on the same pin while its driver is
/// ready. Nobody sets a bit for these, so bit 0 of InterruptStatus reads as set all that time, whatever is acknowledged: a driver then
/// looks at its queues where it need not have, which is no harm, and never fails to.
/// </para>
/// </remarks>
internal sealed class VirtioMmioTransport : IBusDevice, IVirtioTransport, ITransportInterrupts
{
    private readonly TransportCore _core;
    private readonly IInterruptTrigger _interrupt;
    private readonly IDoorbellRegistrar _doorbells;
    private readonly ulong _address;
    private readonly ulong[] _sharedMemory;
    private readonly bool[] _connected;
    private int _interruptStatus;
    private uint _shmSelect;
    private bool _attached;
    private bool _disposed;

    /// <summary>Puts a device into a slot, and owns it from then on.</summary>
    /// <param name="device">The device.</param>
    /// <param name="memory">What its buffers may lie in.</param>
    /// <param name="address">Where the caller puts its registers on the MMIO bus.</param>
    /// <param name="sharedMemory">Guest addresses for the device's shared memory regions, in their order.</param>
    /// <param name="interrupt">Its own edge; disposed of with it.</param>
    /// <param name="doorbells">Connects doorbells.</param>
    /// <param name="log">Takes lines about the device.</param>
    internal VirtioMmioTransport(
        VirtioDevice device,
        GuestMemory memory,
        ulong address,
        ReadOnlySpan<ulong> sharedMemory,
        IInterruptTrigger interrupt,
        IDoorbellRegistrar doorbells,
        Action<string>? log = null)
    {
        if (sharedMemory.Length != device.SharedMemory.Count)
            throw new ArgumentException("Each shared memory region has one address.", nameof(sharedMemory));
        _core = new TransportCore(device, memory, this, log);
        _interrupt = interrupt;
        _doorbells = doorbells;
        _address = address;
        _sharedMemory = sharedMemory.ToArray();
        _connected = new bool[_core.Queues.Length];
        // One that is not connected is served by the register.
        for (int i = 0; i < _connected.Length; i++)
            _connected[i] = doorbells.TryConnect(_core.Queues[i].Doorbell, address + QueueNotify, sizeof(uint), (ulong)i);
        for (int i = 0; i < sharedMemory.Length; i++)
            device.SharedMemory[i].Place(sharedMemory[i]);
    }

    /// <inheritdoc/>
    public VirtioDevice Device => _core.Device;

    /// <inheritdoc/>
    public VirtioBus Bus => VirtioBus.Mmio;

    /// <inheritdoc/>
    public bool IsRunning => _core.IsRunning;

    private uint CurrentInterruptStatus =>
        (uint)Volatile.Read(ref _interruptStatus)
        | (Device.HasExternalCalls && (_core.Status & DeviceStatus.DriverOk) != 0 ? (uint)UsedBuffer : 0);

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        if (offset >= Config)
        {
            using (_core.Gate.Enter())
                _core.ReadConfiguration(offset - Config, data);
            return;
        }
        if (!IsRegister(offset, data.Length))
        {
            data.Fill(0xFF);
            return;
        }
        // Read once per interrupt: not worth waiting for a vCPU that stops a queue.
        uint value;
        if (offset == InterruptStatus)
        {
            value = CurrentInterruptStatus;
        }
        else
        {
            using (_core.Gate.Enter())
            {
                _core.Settle();
                value = ReadRegister((int)offset);
            }
        }
        BinaryPrimitives.WriteUInt32LittleEndian(data, value);
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset >= Config)
        {
            using (_core.Gate.Enter())
            {
                _core.Settle();
                if (!_core.IsResetting)
                    _core.WriteConfiguration(offset - Config, data);
            }
            return;
        }
        if (!IsRegister(offset, data.Length))
            return;
        uint value = BinaryPrimitives.ReadUInt32LittleEndian(data);
        switch ((int)offset)
        {
            case QueueNotify:
                // With VIRTIO_F_NOTIFICATION_DATA, the upper half is the ring's position (§4.2.3.3).
                _core.Notify(value & 0xFFFF);
                break;
            case InterruptAck:
                Interlocked.And(ref _interruptStatus, ~(int)value);
                break;
            default:
                TransportQueue? queue;
                using (_core.Gate.Enter())
                {
                    _core.Settle();
                    if (!_core.IsResetting)
                        WriteRegister((int)offset, value);
                    queue = _core.SelectedQueue;
                }
                if (value == 0 && offset is Status or QueueReady)
                    AwaitStop(queue);
                break;
        }
    }

    /// <summary>
    /// Waits until the reset, or the stop of a queue, that was written is complete: drivers take it to be so at once. Others get at the
    /// registers meanwhile; it is over too when somebody else completes it.
    /// </summary>
    private void AwaitStop(TransportQueue? queue)
    {
        var spin = default(SpinWait);
        while (true)
        {
            using (_core.Gate.Enter())
            {
                _core.Settle();
                if (!_core.IsResetting && queue is not { Ending: QueueEnding.Disable })
                    return;
            }
            // Sleeps a millisecond at a time soon.
            spin.SpinOnce();
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
        // The edge of an interrupt that was pending when the state was saved was another machine's.
        if (CurrentInterruptStatus != 0)
            _interrupt.Raise();
    }

    /// <inheritdoc/>
    public VirtioTransportState Save()
    {
        using (_core.Gate.Enter())
            return _core.Save() with { Mmio = new VirtioMmioState((uint)Volatile.Read(ref _interruptStatus), _shmSelect) };
    }

    /// <inheritdoc/>
    public void Restore(VirtioTransportState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        if (state.Mmio is not { } mmio)
            throw VmmException.Configuration($"Cannot restore {Device.Id}: it was not on the MMIO bus when it was saved. Put it on the bus that it was on.");
        using (_core.Gate.Enter())
        {
            _core.Check(state);
            Volatile.Write(ref _interruptStatus, (int)mmio.InterruptStatus & (UsedBuffer | ConfigurationChange));
            _shmSelect = mmio.SharedMemorySelect;
            _core.Restore(state);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_disposed)
            return;
        _disposed = true;
        for (int i = 0; i < _connected.Length; i++)
        {
            if (_connected[i])
                _doorbells.Disconnect(_core.Queues[i].Doorbell, _address + QueueNotify, sizeof(uint), (ulong)i);
        }
        _core.Dispose();
        _interrupt.Dispose();
    }

    /// <inheritdoc/>
    public void InterruptQueue(int queue) => Interrupt(UsedBuffer);

    /// <inheritdoc/>
    public void InterruptConfiguration() => Interrupt(ConfigurationChange);

    /// <inheritdoc/>
    public void DriverReady()
    {
        if (_attached || !Device.HasExternalCalls)
            return;
        _attached = true;
        foreach (TransportQueue queue in _core.Queues)
        {
            if (!_interrupt.TryAttach(queue.Call!))
                _core.NeedsReset("the host does not connect its interrupts to the guest");
        }
    }

    /// <inheritdoc/>
    public void ResetInterrupts()
    {
        foreach (TransportQueue queue in _core.Queues)
        {
            if (_attached)
                _interrupt.Detach(queue.Call!);
            _ = queue.Call?.TryConsume();
        }
        _attached = false;
        Interlocked.Exchange(ref _interruptStatus, 0);
        _shmSelect = 0;
    }

    /// <inheritdoc/>
    public void ResetQueueInterrupt(int queue)
    {
    }

    /// <summary>Registers are accessed with aligned 32 bits (§4.2.2.2); nobody answers to anything else.</summary>
    private static bool IsRegister(ulong offset, int length) => length == sizeof(uint) && offset % sizeof(uint) == 0;

    private void Interrupt(int cause)
    {
        Interlocked.Or(ref _interruptStatus, cause);
        _interrupt.Raise();
    }

    private uint ReadRegister(int offset) => offset switch
    {
        MagicValue => Magic,
        VirtioMmioRegisters.Version => ModernVersion,
        DeviceId => (uint)Device.Type,
        VendorId => Vendor,
        DeviceFeatures => _core.DeviceFeatures,
        QueueSizeMax => _core.SelectedQueue?.MaximumSize ?? 0u,
        QueueReady => _core.SelectedQueue is { Enabled: true } ? 1u : 0u,
        Status => _core.VisibleStatus,
        ShmLenLow => (uint)SelectedSharedMemory.Length,
        ShmLenHigh => (uint)(SelectedSharedMemory.Length >> 32),
        ShmBaseLow => (uint)SelectedSharedMemory.Address,
        ShmBaseHigh => (uint)(SelectedSharedMemory.Address >> 32),
        ConfigGeneration => _core.ConfigurationGeneration,
        QueueReset => _core.SelectedQueue is { Ending: QueueEnding.Reset } ? 1u : 0u,
        // Registers that are written only.
        _ => 0,
    };

    private void WriteRegister(int offset, uint value)
    {
        switch (offset)
        {
            case DeviceFeaturesSel:
                _core.DeviceFeaturesSelect = value;
                break;
            case DriverFeatures:
                _core.WriteDriverFeatures(value);
                break;
            case DriverFeaturesSel:
                _core.DriverFeaturesSelect = value;
                break;
            case QueueSel:
                _core.QueueSelect = value;
                break;
            case QueueSize:
                _core.SetQueueSize(value);
                break;
            case QueueReady when value == 1:
                _core.EnableQueue();
                break;
            case QueueReady when value == 0:
                _core.DisableQueue();
                break;
            case Status:
                _core.WriteStatus((byte)value);
                break;
            case QueueDescLow or QueueDescHigh:
                _core.SetQueueAddress(QueueArea.Descriptor, offset == QueueDescHigh, value);
                break;
            case QueueDriverLow or QueueDriverHigh:
                _core.SetQueueAddress(QueueArea.Driver, offset == QueueDriverHigh, value);
                break;
            case QueueDeviceLow or QueueDeviceHigh:
                _core.SetQueueAddress(QueueArea.Device, offset == QueueDeviceHigh, value);
                break;
            case ShmSel:
                _shmSelect = value;
                break;
            case QueueReset when value == 1:
                _core.ResetQueue();
                break;
        }
    }

    /// <summary>Where the selected region is; all ones where there is none (§4.2.2.1).</summary>
    private (ulong Address, ulong Length) SelectedSharedMemory
    {
        get
        {
            IReadOnlyList<SharedMemoryRegion> regions = Device.SharedMemory;
            for (int i = 0; i < regions.Count; i++)
            {
                if (regions[i].Id == _shmSelect)
                    return (_sharedMemory[i], regions[i].Length);
            }
            return (ulong.MaxValue, ulong.MaxValue);
        }
    }
}
