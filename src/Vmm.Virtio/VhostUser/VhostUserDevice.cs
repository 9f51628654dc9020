using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Core.Locking;
using Vmm.Core.Memory;
using Vmm.Devices;
using Vmm.Virtio.Devices;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.Queues;
using Vmm.Virtio.SharedMemory;
using Vmm.Virtio.VhostUser.Protocol;

namespace Vmm.Virtio.VhostUser;

/// <summary>
/// A device whose queues an external program serves, in one life of a machine. It is any type of device: what a driver sees is what the
/// back-end offers, as far as it concerns drivers.
/// </summary>
public sealed class VhostUserDevice : VirtioDevice
{
    private readonly VhostUserBackEnd _backEnd;
    private readonly SharedMemoryWindow[] _windows;
    private readonly List<VirtQueueSetup> _starting = [];
    private readonly QueueStop?[] _stops;
    private readonly bool[] _started;
    private readonly VirtQueueState[] _stopped;

    // Which queue is the control queue of the driver that is there; below 0 for none.
    private int _control = -1;

    // Over the question whether the back-end may map now, and the mapping: nothing is mapped after all was taken away.
    private readonly OrderedLock _mappingLock = new(LockRank.DeviceMappings);
    private bool _acceptsMappings;
    private bool _disposed;

    /// <summary>Makes the device of a back-end.</summary>
    /// <param name="backEnd">It; outlives the device, which is its only one.</param>
    /// <param name="slots">The guest's address space, for what the back-end maps.</param>
    /// <param name="quota">How much it may map.</param>
    public VhostUserDevice(VhostUserBackEnd backEnd, IGuestMemorySlots slots, SharedMemoryQuota quota)
        : base(IdOf(backEnd), backEnd.Settings.Type)
    {
        _backEnd = backEnd;
        QueueSizes = backEnd.Settings.HasControlQueue ? [.. backEnd.Settings.QueueSizes, VhostUserBackEnd.ControlQueueSize] : backEnd.Settings.QueueSizes;
        int queues = QueueSizes.Count;
        (_stops, _started, _stopped) = (new QueueStop?[queues], new bool[queues], new VirtQueueState[queues]);
        _windows = [.. backEnd.Offer.SharedMemory.OrderBy(region => region.Key).Select(region => new SharedMemoryWindow(region.Key, region.Value, slots, quota))];
        backEnd.Attach(this);
    }

    /// <inheritdoc/>
    public override ulong OfferedFeatures => (_backEnd.Features & ~VhostUserFeatures.NotForGuests & ~_backEnd.Settings.RefusedFeatures) | _backEnd.Settings.OwnFeatures;

    /// <inheritdoc/>
    public override IReadOnlyList<ushort> QueueSizes { get; }

    /// <inheritdoc/>
    public override IReadOnlyList<SharedMemoryRegion> SharedMemory => _windows;

    /// <inheritdoc/>
    public override int ConfigurationLength => _backEnd.ConfigurationLength;

    /// <inheritdoc/>
    public override bool HasExternalCalls => true;

    /// <summary>What its back-end is, and how the connection to it is.</summary>
    public VhostUserBackEnd BackEnd => _backEnd;

    /// <inheritdoc/>
    public override void ReadConfiguration(int offset, Span<byte> data) => _backEnd.ReadConfiguration(offset, data);

    /// <inheritdoc/>
    public override uint ConfigurationGeneration => _backEnd.ConfigurationGeneration;

    /// <inheritdoc/>
    public override void WriteConfiguration(int offset, ReadOnlySpan<byte> data) => _backEnd.WriteConfiguration(offset, data);

    /// <inheritdoc/>
    public override void Activate(VirtioActivation activation)
    {
        ArgumentNullException.ThrowIfNull(activation);
        // VIRTIO 1.3 §5.1.2: without VIRTIO_NET_F_MQ there is one pair, and the control queue follows it.
        _control = !_backEnd.Settings.HasControlQueue || !activation.Has(NetFeatures.CtrlVq) ? -1
            : activation.Has(NetFeatures.MultiQueue) ? 2 * _backEnd.ControlledPairs : 2;
        _backEnd.Activate(activation);
    }

    /// <inheritdoc/>
    public override void StartQueue(in VirtQueueSetup setup)
    {
        if (_started[setup.Index])
            return;
        _started[setup.Index] = true;
        _stops[setup.Index] = null;
        _stopped[setup.Index] = setup.State;
        if (setup.Index == _control)
            _backEnd.StartControl(setup);
        else if (IsOfBackEnd(setup.Index))
            _starting.Add(setup);
    }

    /// <inheritdoc/>
    public override void QueuesStarted()
    {
        if (_starting.Count == 0)
            return;
        _backEnd.Start([.. _starting]);
        _starting.Clear();
    }

    /// <inheritdoc/>
    public override void BeginStopQueue(int index)
    {
        if (_started[index])
            _stops[index] ??= index == _control ? _backEnd.BeginStopControl(_stopped[index]) : IsOfBackEnd(index) ? _backEnd.BeginStop(index) : QueueStop.Done(_stopped[index]);
    }

    /// <inheritdoc/>
    public override bool IsQueueStopped(int index) => !_started[index] || _stops[index] is { IsDone: true };

    /// <inheritdoc/>
    public override VirtQueueState StopQueue(int index)
    {
        if (!_started[index])
            return _stopped[index];
        BeginStopQueue(index);
        _stopped[index] = _stops[index]!.Wait();
        _started[index] = false;
        _stops[index] = null;
        return _stopped[index];
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        _ = DropMappings();
        Array.Clear(_stopped);
        _backEnd.Reset();
    }

    /// <inheritdoc/>
    /// <exception cref="VmmException">The back-end has a state that it does not give.</exception>
    public override VirtioDeviceState Save()
    {
        // It maps nothing any more: its queues have stopped.
        int mappings = _windows.Sum(window => window.Count);
        if (mappings > 0 && !_backEnd.HasState)
        {
            throw VmmException.Host(
                $"Cannot save the state of {Id}: its back-end has {mappings} mapping{(mappings == 1 ? "" : "s")} in shared memory, and cannot tell another one what they are (it lacks the protocol feature DEVICE_STATE). Let the guest unmount what is on it or unbind its driver first, or use a back-end with DEVICE_STATE.");
        }
        return new VhostUserState(_backEnd.SaveState()) { Control = _backEnd.SaveControl() };
    }

    /// <inheritdoc/>
    public override void Restore(VirtioDeviceState state)
    {
        VhostUserState saved = DeviceStates.Require<VhostUserState>("vhost-user device", state);
        SavedState.RequireVersion(Id, saved.Version, VhostUserState.CurrentVersion);
        _backEnd.LoadControl(saved.Control);
        _backEnd.LoadState(saved.BackEnd);
    }

    /// <inheritdoc/>
    public override void ReportCounters(ICounterSink sink)
    {
        ArgumentNullException.ThrowIfNull(sink);
        _backEnd.ReportCounters(sink);
        foreach (SharedMemoryWindow window in _windows)
            window.Counters.Report(sink);
    }

    /// <summary>A file is to be seen in a region. On the back-end's channel.</summary>
    /// <returns>0, or an errno.</returns>
    internal int Map(in SharedMemoryMapping mapping, int descriptor)
    {
        if (Find(mapping.Region) is not { } window || (mapping.Flags & ~SharedMemoryMapping.Writable) != 0)
            return LibC.EINVAL;
        using (_mappingLock.Enter())
        {
            // A device that was not started, or was stopped, does nothing by itself.
            return _acceptsMappings
                ? window.TryMap(descriptor, mapping.FileOffset, mapping.Offset, mapping.Length, (mapping.Flags & SharedMemoryMapping.Writable) != 0)
                : LibC.EBUSY;
        }
    }

    /// <summary>It is to be seen no more. On the back-end's channel.</summary>
    /// <returns>0, or an errno.</returns>
    internal int Unmap(in SharedMemoryMapping mapping)
    {
        if (Find(mapping.Region) is not { } window)
            return LibC.EINVAL;
        using (_mappingLock.Enter())
            return _acceptsMappings ? window.TryUnmap(mapping.Offset, mapping.Length) : LibC.EBUSY;
    }

    /// <summary>The back-end is about to serve queues.</summary>
    internal void AcceptMappings()
    {
        using (_mappingLock.Enter())
            _acceptsMappings = true;
    }

    /// <summary>It serves none any more.</summary>
    internal void RefuseMappings()
    {
        using (_mappingLock.Enter())
            _acceptsMappings = false;
    }

    /// <summary>Takes all mappings away, and says whether there were any. None comes after it until the back-end serves again.</summary>
    internal bool DropMappings()
    {
        using (_mappingLock.Enter())
        {
            _acceptsMappings = false;
            bool any = false;
            foreach (SharedMemoryWindow window in _windows)
            {
                any |= window.Count > 0;
                window.UnmapAll();
            }
            return any;
        }
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (_disposed)
            return;
        _disposed = true;
        _backEnd.Detach(this);
        _ = DropMappings();
        foreach (SharedMemoryWindow window in _windows)
            window.Dispose();
        base.Dispose(disposing);
    }

    // A driver may set up a queue that means nothing to it: where the control queue would be, had it accepted the features.
    private bool IsOfBackEnd(int index) => index < _backEnd.Settings.QueueSizes.Count && index != _control;

    private SharedMemoryWindow? Find(byte id)
    {
        foreach (SharedMemoryWindow window in _windows)
        {
            if (window.Id == id)
                return window;
        }
        return null;
    }

    private static string IdOf(VhostUserBackEnd backEnd)
    {
        ArgumentNullException.ThrowIfNull(backEnd);
        return backEnd.Settings.Id;
    }
}
