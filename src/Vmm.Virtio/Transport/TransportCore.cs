using System.Numerics;
using Vmm.Core.Locking;
using Vmm.Core;
using Vmm.Core.Memory;
using Vmm.Virtio.Queues;
using Vmm.Virtio.SharedMemory;
using static Vmm.Virtio.Transport.DeviceStatus;

namespace Vmm.Virtio.Transport;

/// <summary>
/// What both transports have in common: the device status and what follows from it, features, queue registers and the configuration
/// space (VIRTIO 1.3 §2.1 to §2.6, §3.1). A transport decodes its registers and calls this with <see cref="Gate"/> held.
/// </summary>
/// <remarks>
/// The members of <see cref="IVirtioHost"/> are called by the threads of event loops, while a vCPU thread may hold the lock and wait for
/// just that thread to let go of a queue. So they take no lock, and what they change is changed atomically.
/// </remarks>
internal sealed partial class TransportCore : IVirtioHost, IDisposable
{
    private const int DriverBits = Acknowledge | Driver | DriverOk | FeaturesOk | Failed;

    private readonly GuestMemory _memory;
    private readonly ITransportInterrupts _interrupts;
    private readonly Action<string>? _log;
    private readonly TransportQueue[] _queues;
    private ulong _driverFeatures;

    // A driver that accepts bits we have no place for accepts bits that were not offered.
    private bool _hasUnknownFeatures;
    private int _status;
    private uint _generation;

    // Several may want it to stand still at a time; it goes on when the last one lets it.
    private int _pauses;
    private bool _disposed;

    /// <summary>Makes one for a device that no driver has touched; owns the device.</summary>
    /// <param name="device">The device.</param>
    /// <param name="memory">What buffers may lie in.</param>
    /// <param name="interrupts">The transport's interrupts.</param>
    /// <param name="log">Takes one line: what went wrong, on which device. Any thread; it does not wait.</param>
    internal TransportCore(VirtioDevice device, GuestMemory memory, ITransportInterrupts interrupts, Action<string>? log)
    {
        Device = device;
        _memory = memory;
        _interrupts = interrupts;
        _log = log;
        _queues = new TransportQueue[device.QueueSizes.Count];
        for (int i = 0; i < _queues.Length; i++)
            _queues[i] = new TransportQueue(i, device.QueueSizes[i], device.HasExternalCalls);
        foreach (SharedMemoryRegion region in device.SharedMemory)
            region.ReportTo(Log);
    }

    /// <summary>The transport's lock: one call of a driver at a time.</summary>
    internal OrderedLock Gate { get; } = new(LockRank.Transport);

    internal VirtioDevice Device { get; }

    internal ReadOnlySpan<TransportQueue> Queues => _queues;

    internal byte Status => (byte)Volatile.Read(ref _status);

    /// <summary>
    /// The device status as a driver reads it. A device that breaks while it has no driver says so only once it has one again: drivers wait
    /// for zero after a reset, for ever.
    /// </summary>
    internal byte VisibleStatus => Status is var status && (status & DriverBits) != 0 ? status : (byte)0;

    /// <summary>Changes with the configuration space (§2.5).</summary>
    internal uint ConfigurationGeneration => Volatile.Read(ref _generation) + Device.ConfigurationGeneration;

    internal bool IsRunning => (Status & (DriverOk | DeviceNeedsReset | Failed)) == DriverOk;

    internal uint DeviceFeaturesSelect { get; set; }

    internal uint DriverFeaturesSelect { get; set; }

    internal uint QueueSelect { get; set; }

    /// <summary>The queue that the queue registers are of; null where the device has no such queue.</summary>
    internal TransportQueue? SelectedQueue => QueueSelect < (uint)_queues.Length ? _queues[QueueSelect] : null;

    /// <summary>The offered features in the selected window.</summary>
    internal uint DeviceFeatures => Window(Device.Features, DeviceFeaturesSelect);

    /// <summary>The accepted features in the selected window.</summary>
    internal uint DriverFeatures => Window(_driverFeatures, DriverFeaturesSelect);

    /// <summary>A driver's write of a window of features; without effect once FEATURES_OK is set (§3.1.1 step 5).</summary>
    internal void WriteDriverFeatures(uint value)
    {
        if ((Status & FeaturesOk) != 0)
            return;
        if (DriverFeaturesSelect == 0)
            _driverFeatures = (_driverFeatures & 0xFFFF_FFFF_0000_0000) | value;
        else if (DriverFeaturesSelect == 1)
            _driverFeatures = (uint)_driverFeatures | ((ulong)value << 32);
        else
            _hasUnknownFeatures |= value != 0;
    }

    /// <summary>
    /// A driver's write of the device status. Zero resets; bits that are set stay set until then, whatever is written. FEATURES_OK stays
    /// clear where the features are refused, which a driver finds by reading it back (§3.1.1 step 6). Dropped while a reset is under way.
    /// </summary>
    internal void WriteStatus(byte value)
    {
        if (IsResetting)
            return;
        if (value == 0)
        {
            BeginReset();
            return;
        }
        int wanted = value & DriverBits & ~Status;
        Interlocked.Or(ref _status, wanted & (Acknowledge | Driver | Failed));
        if ((wanted & FeaturesOk) != 0 && AcceptsFeatures())
            Interlocked.Or(ref _status, FeaturesOk);
        if ((wanted & DriverOk) != 0 && (Status & (FeaturesOk | DeviceNeedsReset | Failed)) == FeaturesOk)
        {
            Interlocked.Or(ref _status, DriverOk);
            _interrupts.DriverReady();
            Activate();
            StartAll();
        }
    }

    /// <summary>Sets the selected queue's size; what the device cannot do is dropped. Whether a layout allows it is known when it starts.</summary>
    internal void SetQueueSize(uint size)
    {
        if (SelectedQueue is { Enabled: false } queue && size >= 1 && size <= queue.MaximumSize)
            queue.Size = (ushort)size;
    }

    /// <summary>Sets half of an address of the selected queue.</summary>
    /// <param name="area">Which.</param>
    /// <param name="high">The upper half.</param>
    /// <param name="value">Its bits.</param>
    internal void SetQueueAddress(QueueArea area, bool high, uint value)
    {
        if (SelectedQueue is not { Enabled: false } queue)
            return;
        switch (area)
        {
            case QueueArea.Descriptor:
                queue.DescriptorArea = Merge(queue.DescriptorArea, high, value);
                break;
            case QueueArea.Driver:
                queue.DriverArea = Merge(queue.DriverArea, high, value);
                break;
            default:
                queue.DeviceArea = Merge(queue.DeviceArea, high, value);
                break;
        }
    }

    /// <summary>Enables the selected queue; it starts now where the driver is ready, as after a queue reset (§2.6.1.2).</summary>
    internal void EnableQueue()
    {
        if (SelectedQueue is not { Enabled: false } queue)
            return;
        queue.Enabled = true;
        queue.Ring = VirtQueueState.Initial;
        StartIfDue(queue);
        TellStarted();
    }

    /// <summary>A doorbell that came through a register. Needs no lock.</summary>
    internal void Notify(uint queue)
    {
        if (queue < (uint)_queues.Length)
            _queues[queue].Doorbell.Signal();
    }

    /// <summary>A driver's read of the configuration space; ones past its end.</summary>
    internal void ReadConfiguration(ulong offset, Span<byte> data)
    {
        int length = Device.ConfigurationLength;
        int inside = offset < (ulong)length ? Math.Min(data.Length, length - (int)offset) : 0;
        data[inside..].Fill(0xFF);
        if (inside == 0)
            return;
        try
        {
            Device.ReadConfiguration((int)offset, data[..inside]);
        }
        catch (Exception e)
        {
            Broken("read its configuration", e);
        }
    }

    /// <summary>A driver's write to the configuration space; dropped where some of it lies past the end.</summary>
    internal void WriteConfiguration(ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset > (ulong)Device.ConfigurationLength || data.Length > Device.ConfigurationLength - (int)offset)
            return;
        try
        {
            Device.WriteConfiguration((int)offset, data);
        }
        catch (Exception e)
        {
            Broken("write its configuration", e);
        }
    }

    /// <inheritdoc/>
    public void SignalQueue(int queue) => _interrupts.InterruptQueue(queue);

    /// <inheritdoc/>
    public void SignalConfigurationChange()
    {
        // Before the interrupt: who is woken by it must see that what it read is stale.
        Interlocked.Increment(ref _generation);
        if ((Status & FeaturesOk) != 0)
            _interrupts.InterruptConfiguration();
    }

    /// <inheritdoc/>
    public void NeedsReset(string reason)
    {
        int before = Interlocked.Or(ref _status, DeviceNeedsReset);
        if ((before & DeviceNeedsReset) != 0)
            return;
        Log($"stopped until its driver resets it: {reason}");
        if ((before & DriverOk) != 0)
            _interrupts.InterruptConfiguration();
    }

    /// <summary>Says something about the device in the log.</summary>
    internal void Log(string clause) => _log?.Invoke($"{Device.Id}: {clause}");

    /// <summary>Asks the queues to stop, and does not wait. For who pauses several devices: the longest counts then, and not the sum.</summary>
    internal void BeginPause()
    {
        foreach (TransportQueue queue in _queues)
            BeginStop(queue);
    }

    /// <summary>
    /// Stops the queues. Not with <see cref="Gate"/> held: while somebody else has to let go of them first, a vCPU that looks at a register waits for nobody.
    /// </summary>
    internal void Pause()
    {
        using (Gate.Enter())
        {
            _pauses++;
            BeginPause();
        }
        var spin = default(SpinWait);
        while (!TryCompletePause())
        {
            // Sleeps a millisecond at a time soon.
            spin.SpinOnce();
        }
    }

    private bool TryCompletePause()
    {
        using (Gate.Enter())
        {
            foreach (TransportQueue queue in _queues)
            {
                if (!IsStopped(queue))
                    return false;
            }
            StopAll();
            // A reset that was under way is complete with that: what is saved is a device at rest.
            Settle();
            return true;
        }
    }

    internal void Resume()
    {
        if (_pauses > 0 && --_pauses == 0)
            StartAll();
    }

    /// <summary>What both transports save.</summary>
    internal VirtioTransportState Save()
    {
        if (_pauses == 0)
            throw new InvalidOperationException($"{Device.Id} is saved while it runs.");
        return new VirtioTransportState
        {
            Type = Device.Type,
            Device = Device.Save(),
            Status = Status,
            DriverFeatures = _driverFeatures,
            HasUnknownFeatures = _hasUnknownFeatures,
            DeviceFeaturesSelect = DeviceFeaturesSelect,
            DriverFeaturesSelect = DriverFeaturesSelect,
            QueueSelect = QueueSelect,
            ConfigurationGeneration = ConfigurationGeneration,
            IsSilenced = _silenced,
            Queues = [.. _queues.Select(q => new VirtioQueueState(q.Size, q.DescriptorArea, q.DriverArea, q.DeviceArea, q.Enabled, q.Ring))],
        };
    }

    /// <summary>Puts it back; what the transport has of its own is put back before.</summary>
    internal void Restore(VirtioTransportState state)
    {
        Check(state);
        StopAll();
        IsResetting = _isSilencedMeanwhile = false;
        _ending = 0;
        _pauses = Math.Max(_pauses, 1);
        _silenced = state.IsSilenced;
        Device.Reset();
        Device.Restore(state.Device!);
        _driverFeatures = state.DriverFeatures;
        _hasUnknownFeatures = state.HasUnknownFeatures;
        DeviceFeaturesSelect = state.DeviceFeaturesSelect;
        DriverFeaturesSelect = state.DriverFeaturesSelect;
        QueueSelect = state.QueueSelect;
        Volatile.Write(ref _generation, state.ConfigurationGeneration - Device.ConfigurationGeneration);
        for (int i = 0; i < _queues.Length; i++)
        {
            VirtioQueueState saved = state.Queues[i];
            TransportQueue queue = _queues[i];
            queue.Size = saved.Size;
            queue.DescriptorArea = saved.DescriptorArea;
            queue.DriverArea = saved.DriverArea;
            queue.DeviceArea = saved.DeviceArea;
            queue.Enabled = saved.Enabled;
            queue.Ending = QueueEnding.None;
            queue.Ring = saved.Ring;
        }
        Interlocked.Exchange(ref _status, state.Status & (DriverBits | DeviceNeedsReset));
        if ((Status & DriverOk) != 0)
            _interrupts.DriverReady();
        if (IsRunning)
            Activate();
    }

    /// <summary>Stops everything and gives back the device. Nobody calls a register any more.</summary>
    public void Dispose()
    {
        using (Gate.Enter())
        {
            if (_disposed)
                return;
            _disposed = true;
            _settling?.Dispose();
            StopAll();
            Settle();
            Device.Dispose();
            // Nobody looks at the eventfds any more when they go.
            _interrupts.ResetInterrupts();
            foreach (TransportQueue queue in _queues)
            {
                queue.Doorbell.Dispose();
                queue.Call?.Dispose();
            }
        }
    }

    private static uint Window(ulong features, uint select) => select switch
    {
        0 => (uint)features,
        1 => (uint)(features >> 32),
        _ => 0,
    };

    private static ulong Merge(ulong address, bool high, uint value) =>
        high ? (uint)address | ((ulong)value << 32) : (address & 0xFFFF_FFFF_0000_0000) | value;

    private bool AcceptsFeatures() =>
        (Status & (Acknowledge | Driver | DeviceNeedsReset | Failed)) == (Acknowledge | Driver)
        && !_hasUnknownFeatures
        && (_driverFeatures & VirtioFeatures.Version1) != 0
        && (_driverFeatures & ~Device.Features) == 0;

    private void Activate()
    {
        try
        {
            Device.Activate(new VirtioActivation(_driverFeatures, _memory, this));
        }
        catch (Exception e)
        {
            Broken("start it", e);
        }
    }

    private void StartAll()
    {
        foreach (TransportQueue queue in _queues)
            StartIfDue(queue);
        TellStarted();
    }

    private void TellStarted()
    {
        try
        {
            Device.QueuesStarted();
        }
        catch (Exception e)
        {
            Broken("start its queues", e);
        }
    }

    private void StartIfDue(TransportQueue queue)
    {
        if (!queue.Enabled || queue.Running || _pauses > 0 || _disposed || _silenced || IsResetting || !IsRunning)
            return;
        if ((_driverFeatures & VirtioFeatures.RingPacked) == 0 && !BitOperations.IsPow2(queue.Size))
        {
            NeedsReset($"queue {queue.Index}: the size of a split queue, {queue.Size}, is not a power of two");
            return;
        }
        queue.Running = true;
        try
        {
            Device.StartQueue(queue.Setup);
        }
        catch (Exception e)
        {
            Broken($"start queue {queue.Index}", e);
        }
    }

    private void Broken(string doing, Exception e) =>
        NeedsReset($"this program failed to {doing}: {e.GetType().Name}: {e.Message}");

    /// <summary>Refuses a state that does not fit the device.</summary>
    /// <exception cref="VmmException">It does not.</exception>
    internal void Check(VirtioTransportState state)
    {
        Vmm.Devices.SavedState.RequireVersion(Device.Id, state.Version, VirtioTransportState.CurrentVersion);
        string? problem =
            state.Type != Device.Type ? $"it is of a device of type {(int)state.Type}, and this one is of type {(int)Device.Type}"
            : state.Device == null ? "it has no state of the device itself"
            : state.Queues.Length != _queues.Length ? $"it has {state.Queues.Length} queues, and the device has {_queues.Length}"
            : (state.Status & (DriverOk | FeaturesOk)) == DriverOk ? "its driver is ready without having agreed on features"
            : (state.Status & FeaturesOk) != 0 && (state.HasUnknownFeatures || (state.DriverFeatures & VirtioFeatures.Version1) == 0)
                ? "its driver uses features that no device has, or none of VIRTIO 1"
            : (state.Status & FeaturesOk) != 0 && (state.DriverFeatures & ~Device.Features) != 0
                ? $"its driver uses features that are not offered here, 0x{state.DriverFeatures & ~Device.Features:x}"
            : null;
        for (int i = 0; problem == null && i < _queues.Length; i++)
        {
            if (state.Queues[i].Size < 1 || state.Queues[i].Size > _queues[i].MaximumSize)
                problem = $"queue {i} has a size of {state.Queues[i].Size}, and this device takes 1 to {_queues[i].MaximumSize}";
        }
        if (problem != null)
        {
            throw VmmException.Configuration(
                $"Cannot restore {Device.Id}: its saved state does not fit: {problem}. Restore with the configuration that it was saved with.");
        }
    }
}
