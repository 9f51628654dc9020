using System.Runtime.InteropServices;
using Vmm.Core;
using Vmm.Core.Events;
using Vmm.Core.Memory;
using Vmm.Devices;
using Vmm.Virtio.Queues;
using Vmm.Virtio.SharedMemory;

namespace Vmm.Virtio.Devices.Pmem;

/// <summary>
/// Persistent memory (VIRTIO 1.3 §5.19): a host file that the guest has in its address space, which it reads and writes without us, with
/// DAX without a page cache of its own. Only a flush is a request.
/// </summary>
/// <remarks>
/// Flushes are taken off the queue at once and answered after the file was flushed by a thread of the device's own. All that came while one
/// was under way are served by one more, as a flush covers whatever was written before it began.
/// </remarks>
public sealed class PmemDevice : InProcessDevice
{
    // Linux sends one flush at a time for each file system; requests beyond that wait in its memory.
    private const ushort QueueSize = 64;

    private const int MaximumRequestsPerTurn = QueueSize;

    private readonly PmemFile _file;
    private readonly PmemRegion _region;
    private readonly PmemFlusher _flusher;
    private readonly SharedMemoryRegion[] _regions;
    private readonly Completion _completion;
    private DescriptorChain[] _waiting = new DescriptorChain[QueueSize];
    private DescriptorChain[] _flushing = new DescriptorChain[QueueSize];
    private int _waitingCount, _flushingCount;

    /// <summary>Makes the device and shows its memory to the guest.</summary>
    /// <param name="file">What is behind it; the device disposes of it.</param>
    /// <param name="guestAddress">Where the layout has room for it (<see cref="MemoryLayout.Pmem"/>).</param>
    /// <param name="slots">The guest's address space.</param>
    /// <param name="loops">Who serves its queue: the first.</param>
    /// <exception cref="VmmException">There is other memory.</exception>
    public PmemDevice(PmemFile file, ulong guestAddress, IGuestMemorySlots slots, IReadOnlyList<EventLoop> loops)
        : this(file, guestAddress, slots, loops, null)
    {
    }

    /// <summary>The same, with something else than a flush of the file.</summary>
    internal PmemDevice(PmemFile file, ulong guestAddress, IGuestMemorySlots slots, IReadOnlyList<EventLoop> loops, Func<int>? flush)
        : base(IdOf(file), VirtioDeviceType.PersistentMemory, [QueueSize], loops)
    {
        ArgumentNullException.ThrowIfNull(slots);
        _file = file;
        _region = new PmemRegion(slots, file.Reservation, file.HostAddress, file.Length, file.FileLength, guestAddress);
        if (!_region.IsMapped)
            throw VmmException.Host($"Cannot map the {file.Length} bytes of {file.Config.File} at guest address 0x{guestAddress:x}: KVM refuses; give the guest less memory.");
        _regions = [_region];
        _flusher = new PmemFlusher(flush ?? file.Flush);
        _completion = new Completion(this);
    }

    /// <summary>What it did.</summary>
    public PmemCounters Counters { get; } = new();

    /// <inheritdoc/>
    public override ulong OfferedFeatures => VirtioFeatures.AllQueues | PmemProtocol.SharedMemoryRegion;

    /// <inheritdoc/>
    public override IReadOnlyList<SharedMemoryRegion> SharedMemory => _regions;

    /// <inheritdoc/>
    public override int ConfigurationLength => PmemConfiguration.Length;

    /// <inheritdoc/>
    public override void ReadConfiguration(int offset, Span<byte> data)
    {
        var configuration = new PmemConfiguration(_region.Address, _file.Length);
        MemoryMarshal.AsBytes(new ReadOnlySpan<PmemConfiguration>(in configuration)).Slice(offset, data.Length).CopyTo(data);
    }

    /// <inheritdoc/>
    public override VirtioDeviceState Save() => new PmemState(_file.Length);

    /// <inheritdoc/>
    public override void Restore(VirtioDeviceState state)
    {
        const string name = "persistent memory";
        PmemState saved = DeviceStates.Require<PmemState>(name, state);
        SavedState.RequireVersion(name, saved.Version, PmemState.CurrentVersion);
        if (saved.Length != _file.Length)
        {
            throw VmmException.Configuration(
                $"Cannot restore the persistent memory '{Id}': it had {saved.Length} bytes, and {_file.Config.File} gives {_file.Length}. Restore with the same file.");
        }
    }

    /// <inheritdoc/>
    public override void ReportCounters(ICounterSink sink)
    {
        base.ReportCounters(sink);
        Counters.Report(sink);
    }

    /// <inheritdoc/>
    protected override void QueueStarted(VirtQueue queue) => LoopOf(PmemProtocol.RequestQueue).Add(_flusher.Ended.Number, _completion);

    /// <inheritdoc/>
    protected override void QueueStopping(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        LoopOf(PmemProtocol.RequestQueue).Remove(_flusher.Ended.Number);
        while (_flushingCount > 0)
        {
            _flusher.Wait();
            Complete(queue);
        }
    }

    /// <inheritdoc/>
    protected override bool ServeQueue(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        int taken = 0;
        while (taken < MaximumRequestsPerTurn && queue.TryTake(out DescriptorChain? chain))
        {
            taken++;
            if (!chain.TryRead(0, out uint type) || type != PmemProtocol.RequestFlush || chain.WritableLength < sizeof(uint))
            {
                Counters.CountMalformed();
                Answer(queue, chain, PmemProtocol.ResultFailed);
                continue;
            }
            // There are never more chains outside of the queue than it has descriptors.
            _waiting[_waitingCount++] = chain;
        }
        queue.Flush();
        FlushWaiting();
        return taken == MaximumRequestsPerTurn;
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        _flusher.Dispose();
        _region.Remove();
        _file.Dispose();
        base.Dispose(disposing);
    }

    /// <summary>A flush ended: answers all that it covers, and begins the next.</summary>
    private void Complete(VirtQueue queue)
    {
        bool succeeded = _flusher.Error == 0;
        Counters.CountFileFlush(succeeded);
        for (int i = 0; i < _flushingCount; i++)
        {
            Answer(queue, _flushing[i], succeeded ? PmemProtocol.ResultOk : PmemProtocol.ResultFailed);
            Counters.CountFlush();
        }
        _flushingCount = 0;
        queue.Flush();
        FlushWaiting();
    }

    private void FlushWaiting()
    {
        if (_waitingCount == 0 || _flushingCount > 0)
            return;
        (_waiting, _flushing) = (_flushing, _waiting);
        (_waitingCount, _flushingCount) = (0, _waitingCount);
        _flusher.Begin();
    }

    private static void Answer(VirtQueue queue, DescriptorChain chain, uint result) =>
        queue.GiveBack(chain, chain.TryWrite(0, result) ? sizeof(uint) : 0u);

    private static string IdOf(PmemFile file)
    {
        ArgumentNullException.ThrowIfNull(file);
        return file.Config.Id;
    }

    /// <summary>On the queue's loop, when the flusher has ended one.</summary>
    private sealed class Completion(PmemDevice device) : IEventHandler
    {
        public bool Handle()
        {
            device._flusher.Ended.TryConsume();
            // A signal may be left over from a flush that was waited for.
            if (device._flushingCount > 0 && device._flusher.IsIdle && device.RunningQueue(PmemProtocol.RequestQueue) is { } queue)
                device.Complete(queue);
            return false;
        }
    }
}
