using System.Numerics;
using System.Runtime.InteropServices;
using System.Text;
using Vmm.Core;
using Vmm.Core.Events;
using Vmm.Core.Interop;
using Vmm.Devices;
using Vmm.Virtio.Devices.Block.Engines;
using Vmm.Virtio.Queues;
using Vmm.Virtio.RateLimiting;

namespace Vmm.Virtio.Devices.Block;

/// <summary>
/// A block device (VIRTIO 1.3 §5.2) on a raw image. Each queue has an engine of its own on its loop's thread; queues share nothing but
/// the image, the rate limiter and whether the write cache is on.
/// </summary>
public sealed class BlockDevice : InProcessDevice
{
    /// <summary>Bytes of the serial, VIRTIO_BLK_ID_BYTES.</summary>
    public const int SerialLength = 20;

    /// <summary>Ranges of one discard or write zeroes request.</summary>
    public const uint MaximumRanges = 16;

    /// <summary>Sectors of one range to discard: 2 GiB, which the host does at once.</summary>
    public const uint MaximumDiscardSectors = 4 * 1024 * 1024;

    /// <summary>Sectors of one range to zero: 64 MiB, as the host may have to write them.</summary>
    public const uint MaximumWriteZeroesSectors = 128 * 1024;

    private const ulong WritableFeatures = BlockFeatures.Flush | BlockFeatures.ConfigWriteCache | BlockFeatures.WriteZeroes;

    private readonly DiskImage _image;
    private readonly RateLimiter? _limiter;
    private readonly Action<string>? _report;
    private readonly bool _useIoUring;
    private readonly BlockCounters[] _counters;
    private readonly BlockQueue?[] _queues;
    private readonly byte[] _serial = new byte[SerialLength];
    private readonly int _segmentMaximum;
    private long _hostErrors;
    private volatile bool _writeBack = true;

    /// <summary>Makes a device on an image.</summary>
    /// <param name="config">Validated options; path, read-only and direct are the image's already.</param>
    /// <param name="image">Outlives the device.</param>
    /// <param name="loops">The loop of each queue, taken in turn when there are fewer.</param>
    /// <param name="report">Told of errors of the host in a sentence, fewer and fewer the more there are. Any thread; null for nobody.</param>
    /// <param name="clock">The rate limiter's; null for the system's.</param>
    /// <exception cref="VmmException">io_uring was asked for and cannot be had.</exception>
    public BlockDevice(BlockConfig config, DiskImage image, IReadOnlyList<EventLoop> loops, Action<string>? report = null, TimeProvider? clock = null)
        : base(Checked(config).Id, VirtioDeviceType.Block, Sizes(config), loops)
    {
        ArgumentNullException.ThrowIfNull(image);
        _image = image;
        _report = report;
        _limiter = RateLimiter.Create(config.RateLimiter, clock);
        _useIoUring = ChooseIoUring(config);
        _segmentMaximum = Math.Min(config.QueueSize, DescriptorChain.MaximumSegments) - 2;
        _counters = new BlockCounters[config.NumQueues];
        for (int i = 0; i < _counters.Length; i++)
            _counters[i] = new BlockCounters();
        _queues = new BlockQueue?[config.NumQueues];
        string serial = config.Serial ?? config.Id;
        Encoding.ASCII.GetBytes(serial.AsSpan(0, Math.Min(serial.Length, SerialLength)), _serial);
        OfferedFeatures = VirtioFeatures.AllQueues | BlockFeatures.SegmentMaximum | BlockFeatures.BlockSize | BlockFeatures.Topology
            | (image.ReadOnly ? BlockFeatures.ReadOnly : WritableFeatures)
            | (image.CanDiscard ? BlockFeatures.Discard : 0)
            | (config.NumQueues > 1 ? BlockFeatures.MultiQueue : 0);
    }

    /// <inheritdoc/>
    public override ulong OfferedFeatures { get; }

    /// <inheritdoc/>
    public override int ConfigurationLength => BlockConfigurationSpace.Length;

    /// <summary>The engine that a queue runs with; null while it is stopped.</summary>
    public string? EngineOf(int queue) => _queues[queue]?.EngineName;

    /// <summary>What GET_ID answers.</summary>
    internal ReadOnlySpan<byte> Serial => _serial;

    /// <summary>Whether a write that begins now must be on the medium when it ends.</summary>
    internal bool IsWriteThrough { get; private set; }

    /// <inheritdoc/>
    public override void ReadConfiguration(int offset, Span<byte> data)
    {
        uint block = _image.LogicalBlockSize;
        var space = new BlockConfigurationSpace
        {
            Capacity = _image.Sectors,
            SegmentMaximum = (uint)_segmentMaximum,
            BlockSize = block,
            PhysicalBlockExponent = (byte)BitOperations.Log2(_image.PhysicalBlockSize / block),
            MinimumIoSize = (ushort)Math.Min(_image.MinimumIoSize / block, ushort.MaxValue),
            OptimalIoSize = _image.OptimalIoSize / block,
            WriteBack = _writeBack ? (byte)1 : (byte)0,
            NumQueues = (ushort)_queues.Length,
            MaximumDiscardSectors = MaximumDiscardSectors,
            MaximumDiscardRanges = MaximumRanges,
            DiscardSectorAlignment = Math.Max(_image.PhysicalBlockSize / DiskImage.SectorSize, 1),
            MaximumWriteZeroesSectors = MaximumWriteZeroesSectors,
            MaximumWriteZeroesRanges = MaximumRanges,
            WriteZeroesMayUnmap = _image.CanDiscard ? (byte)1 : (byte)0,
        };
        MemoryMarshal.AsBytes(new ReadOnlySpan<BlockConfigurationSpace>(in space)).Slice(offset, data.Length).CopyTo(data);
    }

    /// <inheritdoc/>
    public override void WriteConfiguration(int offset, ReadOnlySpan<byte> data)
    {
        int at = BlockConfigurationSpace.WriteBackOffset - offset;
        if (at < 0 || at >= data.Length || Activation?.Has(BlockFeatures.ConfigWriteCache) != true)
            return;
        _writeBack = data[at] != 0;
        IsWriteThrough = !_writeBack;
    }

    /// <inheritdoc/>
    public override void Activate(VirtioActivation activation)
    {
        ArgumentNullException.ThrowIfNull(activation);
        bool flush = activation.Has(BlockFeatures.Flush);
        // Without flush requests nothing else could make a write durable (VIRTIO 1.3 §5.2.5.2).
        if (!flush)
            _writeBack = false;
        IsWriteThrough = activation.Has(BlockFeatures.ConfigWriteCache) ? !_writeBack : !flush;
        base.Activate(activation);
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        base.Reset();
        _writeBack = true;
        IsWriteThrough = false;
    }

    /// <summary>The image was grown or shrunk: looks at its size again, and tells the driver where it changed. Any thread.</summary>
    /// <returns>The size in sectors of 512 bytes.</returns>
    /// <exception cref="VmmException">The host refuses to tell the size.</exception>
    public ulong Resize()
    {
        ulong before = _image.Sectors;
        ulong now = _image.RefreshSize();
        if (now != before)
            Activation?.Host.SignalConfigurationChange();
        return now;
    }

    /// <inheritdoc/>
    public override VirtioDeviceState Save() => new BlockState(_writeBack, _image.Sectors);

    /// <inheritdoc/>
    public override void Restore(VirtioDeviceState state)
    {
        if (state is not BlockState saved)
            throw VmmException.Configuration($"Cannot restore the disk {Id}: its saved state is that of another device. The snapshot is damaged, or of a machine with other devices.");
        SavedState.RequireVersion($"disk {Id}", saved.Version, BlockState.CurrentVersion);
        if (_image.Sectors < saved.Capacity)
        {
            throw VmmException.Configuration(
                $"Cannot restore the disk {Id}: its image {_image.Path} has {_image.Sectors} sectors, and the guest saw {saved.Capacity}. Use the image that belongs to the snapshot.");
        }
        _writeBack = saved.WriteBack;
    }

    /// <inheritdoc/>
    public override void ReportCounters(ICounterSink sink)
    {
        base.ReportCounters(sink);
        BlockCounters.Report(_counters, sink);
    }

    /// <summary>The host could not do something for a request.</summary>
    /// <param name="type">The request.</param>
    /// <param name="offset">Where, in bytes.</param>
    /// <param name="result">An errno below 0; 0 where the image ended too early.</param>
    internal void HostFailed(BlockRequestType type, ulong offset, int result)
    {
        long count = Interlocked.Increment(ref _hostErrors);
        // The 1st, 2nd, 4th, 8th…: a disk that fails for hours does not fill a log.
        if (_report == null || !BitOperations.IsPow2(count))
            return;
        string why = result == 0 ? "the image ends before that, it was made smaller" : $"{LibC.strerror(-result)} (errno {-result})";
        _report($"The disk {Id} ({_image.Path}) failed: {Name(type)} at byte {offset}: {why}. The guest got an I/O error; it was number {count}.");
    }

    /// <inheritdoc/>
    protected override void QueueStarted(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        EventLoop loop = LoopOf(queue.Index);
        QueueThrottle? throttle = null;
        try
        {
            throttle = _limiter == null ? null : new QueueThrottle(_limiter, loop, ScheduleQueue, queue.Index);
            var served = new BlockQueue(this, queue, _image, CreateEngine(queue.Size), Activation!.Host, _counters[queue.Index], throttle);
            if (served.EngineDescriptor >= 0)
                loop.Add(served.EngineDescriptor, served);
            _queues[queue.Index] = served;
        }
        catch (VmmException e)
        {
            // The host has no descriptor left: the driver is told, and the rest of the machine goes on.
            throttle?.Dispose();
            Activation!.Host.NeedsReset($"queue {queue.Index} cannot be served: {e.Message}");
        }
    }

    /// <inheritdoc/>
    protected override void QueueStopping(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        if (_queues[queue.Index] is not { } served)
            return;
        _queues[queue.Index] = null;
        if (served.EngineDescriptor >= 0)
            LoopOf(queue.Index).Remove(served.EngineDescriptor);
        served.Stop();
    }

    /// <inheritdoc/>
    protected override bool ServeQueue(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        return _queues[queue.Index]?.Serve() ?? false;
    }

    /// <inheritdoc/>
    protected override bool WantsDoorbell(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        return _queues[queue.Index] is { IsThrottled: false };
    }

    private IBlockEngine CreateEngine(int capacity)
    {
        if (_useIoUring)
        {
            if (IoUringEngine.TryCreate(_image, capacity, out string? problem) is { } engine)
                return engine;
            _report?.Invoke($"The disk {Id} goes on without io_uring: {problem}.");
        }
        return new SyncEngine(_image, capacity);
    }

    private static bool ChooseIoUring(BlockConfig config)
    {
        if (config.Engine == BlockEngineKind.Sync)
            return false;
        string? problem = IoUringEngine.Probe();
        if (problem != null && config.Engine == BlockEngineKind.IoUring)
            throw VmmException.Host($"The disk {config.Id} cannot have engine=io_uring: {problem}. Use engine=auto, which does without where it must.");
        return problem == null;
    }

    private static BlockConfig Checked(BlockConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        config.Validate();
        return config;
    }

    private static ushort[] Sizes(BlockConfig config)
    {
        var sizes = new ushort[config.NumQueues];
        Array.Fill(sizes, (ushort)config.QueueSize);
        return sizes;
    }

    private static string Name(BlockRequestType type) => type switch
    {
        BlockRequestType.In => "a read",
        BlockRequestType.Out => "a write",
        BlockRequestType.Flush => "a flush",
        BlockRequestType.Discard => "a discard",
        _ => "writing zeroes",
    };
}
