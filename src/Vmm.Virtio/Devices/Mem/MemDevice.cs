using System.Runtime.InteropServices;
using Vmm.Core;
using Vmm.Core.Events;
using Vmm.Core.Memory;
using Vmm.Devices;
using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Devices.Mem;

/// <summary>
/// Memory that is plugged into a running guest and out again (VIRTIO 1.3 §5.15). The host says how much it shall be; the guest's driver plugs
/// and unplugs blocks of a fixed region until it is so, as far as it can.
/// </summary>
/// <remarks>
/// <para>
/// The region is reserved address space and one memory slot of KVM, both for the whole of it from the start. A slot for each plugged piece
/// would keep a guest from using blocks that it did not plug, but only until it lets a device write there, and each change of a slot stops
/// all vCPUs. So the bound of what a guest can take is the region's size, which whoever starts the machine chose; what it honestly unplugs is
/// given back to the host at once. Slots cost memory only where pages are.
/// </para>
/// <para>
/// What Linux needs: CONFIG_VIRTIO_MEM (x86-64: 5.8; a module in Debian's kernels), with CONFIG_MEMORY_HOTPLUG and CONFIG_MEMORY_HOTREMOVE,
/// and that somebody onlines the blocks of memory that the driver adds: <c>memhp_default_state=online_movable</c> (or <c>online</c>) on the
/// kernel command line, the same written to <c>/sys/devices/system/memory/auto_online_blocks</c>, or a udev rule. Without it the driver stops
/// after 1 GiB that stays offline. Only memory that was onlined as movable can be unplugged reliably. The region must lie at a multiple of a
/// Linux memory block, which is 128 MiB to 2 GiB depending on where RAM ends; the layout's window does. No SRAT is needed: without one all is
/// node 0. It would also tell Linux at boot that memory above 4 GiB may come, so that it keeps bounce buffers (swiotlb) for devices that
/// reach 32 bits only; there are none in this machine, and virtio without VIRTIO_F_ACCESS_PLATFORM does not use them.
/// </para>
/// <para>
/// Blocks stay plugged when a driver resets the device: the next one (after a kexec) finds and unplugs them (§5.15.5). A reset of the machine
/// unplugs all: <see cref="ResetMachine"/>.
/// </para>
/// </remarks>
public sealed class MemDevice : InProcessDevice
{
    private const ushort QueueSize = 64;

    private const int MaximumRequestsPerTurn = 32;

    /// <summary>Giving back 256 MiB of small pages takes the host 10 to 50 ms; then the others of the loop have their turn.</summary>
    private const ulong MaximumDiscardPerTurn = 256UL << 20;

    /// <summary>
    /// How far beyond the requested size the driver may look: Linux adds whole memory blocks (128 MiB or more) and plugs parts of them, and
    /// the requested size may begin and end within one.
    /// </summary>
    private const ulong UsableExtent = 256UL << 20;

    private readonly GuestRegion _region;
    private readonly BlockBitmap _plugged;
    private readonly Lock _lock = new();

    // Under the lock; the bitmap is the queue's loop's alone while the queue runs.
    private ulong _pluggedSize, _requestedSize, _usableSize;

    // A request that takes more than one turn: what is being discarded, and where that stands, in bytes from the region's start.
    private DescriptorChain? _unplugging;
    private bool _unpluggingAll;
    private ulong _discardFirst, _discardNext, _discardEnd;

    /// <summary>Makes a device with nothing plugged.</summary>
    /// <param name="config">What was asked for.</param>
    /// <param name="region">What memory is plugged into: <see cref="GuestRam.Hotplug"/>, mapped into the guest.</param>
    /// <param name="loops">Who serves its queue: the first.</param>
    /// <exception cref="VmmException">A value is wrong.</exception>
    public MemDevice(MemConfig config, GuestRegion region, IReadOnlyList<EventLoop> loops)
        : base(IdOf(config), VirtioDeviceType.Memory, [QueueSize], loops)
    {
        ArgumentNullException.ThrowIfNull(region);
        config.Validate();
        if (region.Length != config.HotplugSize || region.Start % MemConfig.BlockSize != 0)
            throw new ArgumentException("The region is not the one that was asked for.", nameof(region));
        _region = region;
        _plugged = new BlockBitmap((int)(region.Length / MemConfig.BlockSize));
        _requestedSize = config.HotpluggedSize;
        ResizeUsable(mayShrink: true);
    }

    /// <summary>What it did.</summary>
    public MemCounters Counters { get; } = new();

    /// <summary>The most that can be plugged, in bytes.</summary>
    public ulong RegionSize => _region.Length;

    /// <summary>What is plugged, in bytes.</summary>
    public ulong PluggedSize
    {
        get
        {
            lock (_lock)
                return _pluggedSize;
        }
    }

    /// <summary>What the guest is asked to have plugged, in bytes.</summary>
    public ulong RequestedSize
    {
        get
        {
            lock (_lock)
                return _requestedSize;
        }
    }

    /// <inheritdoc/>
    public override ulong OfferedFeatures => VirtioFeatures.AllQueues | MemProtocol.UnpluggedInaccessible;

    /// <inheritdoc/>
    public override int ConfigurationLength => MemConfiguration.Length;

    /// <summary>
    /// Asks the guest to have that much plugged. It follows in its own time, as far as it can: <see cref="PluggedSize"/> tells. Any thread.
    /// </summary>
    /// <param name="size">Bytes; a multiple of <see cref="MemConfig.BlockSize"/>, at most <see cref="RegionSize"/>.</param>
    /// <exception cref="VmmException">The size cannot be asked for.</exception>
    public void SetRequestedSize(ulong size)
    {
        MemConfig.CheckRequestedSize(size, RegionSize, "the size");
        lock (_lock)
        {
            if (_requestedSize == size)
                return;
            _requestedSize = size;
            ResizeUsable(mayShrink: _pluggedSize == 0);
        }
        Activation?.Host.SignalConfigurationChange();
    }

    /// <summary>Unplugs all, as a reset of the machine does. The queue is stopped.</summary>
    public void ResetMachine()
    {
        // Where the host refuses, the memory is only not given back.
        _ = _region.TryDiscard(0, RegionSize);
        UnpluggedAll();
    }

    /// <inheritdoc/>
    public override void ReadConfiguration(int offset, Span<byte> data)
    {
        MemConfiguration configuration;
        lock (_lock)
            configuration = new MemConfiguration(MemConfig.BlockSize, 0, 0, 0, _region.Start, RegionSize, _usableSize, _pluggedSize, _requestedSize);
        MemoryMarshal.AsBytes(new ReadOnlySpan<MemConfiguration>(in configuration)).Slice(offset, data.Length).CopyTo(data);
    }

    /// <inheritdoc/>
    public override VirtioDeviceState Save()
    {
        lock (_lock)
            return new MemState(_region.Start, RegionSize, _usableSize, _requestedSize, _plugged.Words.ToArray());
    }

    /// <inheritdoc/>
    public override void Restore(VirtioDeviceState state)
    {
        const string name = "memory device";
        MemState saved = DeviceStates.Require<MemState>(name, state);
        SavedState.RequireVersion(name, saved.Version, MemState.CurrentVersion);
        if (saved.Address != _region.Start || saved.RegionSize != RegionSize)
        {
            throw VmmException.Configuration(
                $"Cannot restore the memory device '{Id}': it had {saved.RegionSize >> 20}M at 0x{saved.Address:x}, and this machine has {RegionSize >> 20}M at 0x{_region.Start:x}. Restore with the same memory (--memory).");
        }
        if (saved.UsableRegionSize > RegionSize || saved.UsableRegionSize % MemConfig.BlockSize != 0
            || saved.RequestedSize > RegionSize || saved.RequestedSize % MemConfig.BlockSize != 0
            || saved.Plugged is null || !_plugged.TryLoad(saved.Plugged))
        {
            throw VmmException.Configuration($"Cannot restore the memory device '{Id}': its saved sizes cannot be. The snapshot is damaged; take another.");
        }
        lock (_lock)
        {
            _requestedSize = saved.RequestedSize;
            _usableSize = saved.UsableRegionSize;
            _pluggedSize = (ulong)_plugged.CountSet(0, _plugged.Count) * MemConfig.BlockSize;
        }
    }

    /// <inheritdoc/>
    public override void ReportCounters(ICounterSink sink)
    {
        base.ReportCounters(sink);
        Counters.Report(sink);
    }

    /// <inheritdoc/>
    protected override void QueueStopping(VirtQueue queue)
    {
        while (_unplugging != null)
            DiscardPart(queue);
        queue?.Flush();
    }

    /// <inheritdoc/>
    protected override bool ServeQueue(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        if (_unplugging != null)
            DiscardPart(queue);
        int taken = 0;
        while (_unplugging == null && taken < MaximumRequestsPerTurn && queue.TryTake(out DescriptorChain? chain))
        {
            taken++;
            if (!TryServe(queue, chain))
                return false;
        }
        queue.Flush();
        return _unplugging != null || taken == MaximumRequestsPerTurn;
    }

    private unsafe bool TryServe(VirtQueue queue, DescriptorChain chain)
    {
        if (chain.WritableLength < (ulong)sizeof(MemResponse))
        {
            queue.Break("a request has no room for its response");
            return false;
        }
        if (!chain.TryRead(0, out MemRequest request))
        {
            Answer(queue, chain, MemResponseType.Error);
            return true;
        }
        switch (request.Type)
        {
            case MemRequestType.Plug:
                Answer(queue, chain, Plug(request));
                break;
            case MemRequestType.Unplug:
                Unplug(queue, chain, request);
                break;
            case MemRequestType.UnplugAll:
                // Blocks that were never plugged too: a guest may have written there.
                BeginDiscard(queue, chain, all: true, 0, RegionSize);
                break;
            case MemRequestType.State:
                AnswerState(queue, chain, request);
                break;
            default:
                Answer(queue, chain, MemResponseType.Error);
                break;
        }
        return true;
    }

    private MemResponseType Plug(in MemRequest request)
    {
        lock (_lock)
        {
            if (!TryGetBlocks(request, out int first, out int count) || _plugged.CountSet(first, count) > 0)
                return MemResponseType.Error;
            ulong size = (ulong)count * MemConfig.BlockSize;
            // §5.15.6.1: not more than was requested.
            if (_pluggedSize + size > _requestedSize)
                return MemResponseType.Nack;
            _plugged.Fill(first, count, true);
            _pluggedSize += size;
            Counters.CountPlug(size);
            return MemResponseType.Ack;
        }
    }

    private void Unplug(VirtQueue queue, DescriptorChain chain, in MemRequest request)
    {
        bool right;
        int first, count;
        lock (_lock)
            right = TryGetBlocks(request, out first, out count) && _plugged.CountSet(first, count) == count;
        if (right)
            BeginDiscard(queue, chain, all: false, (ulong)first * MemConfig.BlockSize, (ulong)count * MemConfig.BlockSize);
        else
            Answer(queue, chain, MemResponseType.Error);
    }

    private void AnswerState(VirtQueue queue, DescriptorChain chain, in MemRequest request)
    {
        int count, set;
        lock (_lock)
        {
            set = TryGetBlocks(request, out int first, out count) ? _plugged.CountSet(first, count) : -1;
        }
        if (set < 0)
            Answer(queue, chain, MemResponseType.Error);
        else
            Answer(queue, chain, MemResponseType.Ack, set == count ? MemBlockState.Plugged : set == 0 ? MemBlockState.Unplugged : MemBlockState.Mixed);
    }

    /// <summary>The blocks of a request; false where they are none, or not all in the usable part of the region. Under the lock.</summary>
    private bool TryGetBlocks(in MemRequest request, out int first, out int count)
    {
        ulong offset = unchecked(request.Address - _region.Start);
        ulong size = request.BlockCount * MemConfig.BlockSize;
        count = request.BlockCount;
        first = 0;
        if (count == 0 || request.Address < _region.Start || offset % MemConfig.BlockSize != 0 || size > _usableSize || offset > _usableSize - size)
            return false;
        first = (int)(offset / MemConfig.BlockSize);
        return true;
    }

    private void BeginDiscard(VirtQueue queue, DescriptorChain chain, bool all, ulong offset, ulong size)
    {
        _unplugging = chain;
        _unpluggingAll = all;
        _discardFirst = _discardNext = offset;
        _discardEnd = offset + size;
        DiscardPart(queue);
    }

    /// <summary>Gives a bounded part back to the host, and answers when that was the last.</summary>
    private void DiscardPart(VirtQueue queue)
    {
        ulong part = Math.Min(_discardEnd - _discardNext, MaximumDiscardPerTurn);
        bool done = _region.TryDiscard(_discardNext, part);
        _discardNext += part;
        if (done && _discardNext < _discardEnd)
            return;
        DescriptorChain chain = _unplugging!;
        _unplugging = null;
        if (done && _unpluggingAll)
        {
            UnpluggedAll();
        }
        else if (done)
        {
            lock (_lock)
            {
                ulong size = _discardEnd - _discardFirst;
                _plugged.Fill((int)(_discardFirst / MemConfig.BlockSize), (int)(size / MemConfig.BlockSize), false);
                _pluggedSize -= size;
                Counters.CountUnplug(size);
            }
        }
        // Of memory that cannot be given back, the driver keeps the blocks.
        Answer(queue, chain, done ? MemResponseType.Ack : MemResponseType.Busy);
    }

    private void UnpluggedAll()
    {
        lock (_lock)
        {
            Counters.CountUnplug(_pluggedSize);
            _plugged.Fill(0, _plugged.Count, false);
            _pluggedSize = 0;
            ResizeUsable(mayShrink: true);
        }
    }

    /// <summary>
    /// Follows the requested size. It never shrinks below what may be plugged (§5.15.4), of which nobody keeps track but a driver that has
    /// nothing plugged at all. Under the lock.
    /// </summary>
    private void ResizeUsable(bool mayShrink)
    {
        ulong size = _requestedSize == 0 ? 0 : Math.Min(RegionSize, _requestedSize + UsableExtent);
        if (size > _usableSize || mayShrink)
            _usableSize = size;
    }

    private void Answer(VirtQueue queue, DescriptorChain chain, MemResponseType type, MemBlockState state = default)
    {
        Counters.CountResponse(type);
        var response = new MemResponse(type, state);
        queue.GiveBack(chain, chain.TryWrite(0, response) ? MemResponseLength : 0);
    }

    private const uint MemResponseLength = 10;

    private static string IdOf(MemConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        return config.Id;
    }
}
