using System.Buffers.Binary;
using Vmm.Core;
using Vmm.Core.Events;
using Vmm.Devices;
using Vmm.Virtio.Queues;
using static Vmm.Virtio.Devices.Balloon.BalloonProtocol;

namespace Vmm.Virtio.Devices.Balloon;

/// <summary>
/// A memory balloon (VIRTIO 1.3 §5.5): pages that the guest puts into it, and pages that it reports free, go back to the host. Also
/// brings the guest's memory statistics.
/// </summary>
public sealed partial class BalloonDevice : InProcessDevice
{
    /// <summary>The largest balloon, in bytes: 2^32 - 1 pages.</summary>
    public const ulong MaximumSize = (ulong)uint.MaxValue << PageShift;

    /// <summary>Descriptors of each queue: a driver that reports free pages needs 32 for one report.</summary>
    private const ushort QueueSize = 128;

    private readonly BalloonConfig _config;
    private readonly TimerNotifier _statsTimer = new();
    private readonly BalloonQueueRole[] _roles = new BalloonQueueRole[QueueCount];
    private BalloonPages? _pages;
    private IReadOnlyList<uint> _restored = [];
    private long _statsInterval;
    private uint _numPages;
    private uint _actual;

    /// <summary>Makes a device.</summary>
    /// <param name="config">What was asked for.</param>
    /// <param name="loops">Who serves it: the first.</param>
    /// <exception cref="VmmException">A value of the configuration is out of its range.</exception>
    public BalloonDevice(BalloonConfig config, IReadOnlyList<EventLoop> loops)
        : base(Checked(config).Id, VirtioDeviceType.Balloon, [QueueSize, QueueSize, QueueSize, QueueSize, QueueSize], FirstOf(loops))
    {
        _config = config;
        _numPages = (uint)(config.Size >> PageShift);
        _statsInterval = config.StatsPollingInterval.Ticks;
        Loop.Add(_statsTimer.Number, new StatsTimerHandler(this));
    }

    /// <summary>What it did.</summary>
    public BalloonCounters Counters { get; } = new();

    /// <summary>What the guest said last of its memory.</summary>
    public BalloonStatistics Statistics { get; } = new();

    /// <summary>Bytes that are to be in the balloon.</summary>
    public ulong Target => (ulong)Volatile.Read(ref _numPages) << PageShift;

    /// <summary>Bytes that are in it, as the driver says; a driver may say anything.</summary>
    public ulong Actual => (ulong)Volatile.Read(ref _actual) << PageShift;

    /// <summary>
    /// Between an answer with statistics and the next request for them; zero for no requests. May be set while the guest runs, by any thread.
    /// </summary>
    public TimeSpan StatsPollingInterval
    {
        get => new(Interlocked.Read(ref _statsInterval));
        set
        {
            (_config with { StatsPollingInterval = value }).Validate();
            Interlocked.Exchange(ref _statsInterval, value.Ticks);
            Loop.Post(ArmStatsTimer);
        }
    }

    /// <inheritdoc/>
    public override ulong OfferedFeatures => VirtioFeatures.AllQueues | StatsQueueFeature |
        (_config.DeflateOnOom ? DeflateOnOom : 0) | (_config.FreePageReporting ? PageReporting : 0);

    /// <inheritdoc/>
    public override int ConfigurationLength => BalloonProtocol.ConfigurationLength;

    private EventLoop Loop => LoopOf(InflateQueue);

    /// <summary>
    /// Asks the guest to make the balloon that large, up or down; it does so in its own time, and <see cref="Actual"/> follows. Any thread.
    /// </summary>
    /// <param name="bytes">At most <see cref="MaximumSize"/>; a part of a page does not count. Whether the guest can live without them is the caller's to know.</param>
    public void SetTarget(ulong bytes)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(bytes, MaximumSize);
        uint pages = (uint)(bytes >> PageShift);
        if (Interlocked.Exchange(ref _numPages, pages) != pages)
            Activation?.Host.SignalConfigurationChange();
    }

    /// <summary>Asks the guest for statistics now, if it has the means; <see cref="Statistics"/> follows. Any thread.</summary>
    public void RequestStatistics() => Loop.Post(AskForStatistics);

    /// <inheritdoc/>
    public override void ReadConfiguration(int offset, Span<byte> data)
    {
        Span<byte> whole = stackalloc byte[BalloonProtocol.ConfigurationLength];
        BinaryPrimitives.WriteUInt32LittleEndian(whole[NumPagesOffset..], Volatile.Read(ref _numPages));
        BinaryPrimitives.WriteUInt32LittleEndian(whole[ActualOffset..], Volatile.Read(ref _actual));
        whole.Slice(offset, data.Length).CopyTo(data);
    }

    /// <inheritdoc/>
    public override void WriteConfiguration(int offset, ReadOnlySpan<byte> data)
    {
        Span<byte> actual = stackalloc byte[sizeof(uint)];
        BinaryPrimitives.WriteUInt32LittleEndian(actual, _actual);
        for (int i = 0; i < data.Length; i++)
        {
            // num_pages is not the driver's to write (§5.5.4).
            if (offset + i - ActualOffset is >= 0 and < sizeof(uint) and int at)
                actual[at] = data[i];
        }
        Volatile.Write(ref _actual, BinaryPrimitives.ReadUInt32LittleEndian(actual));
    }

    /// <inheritdoc/>
    public override void Activate(VirtioActivation activation)
    {
        ArgumentNullException.ThrowIfNull(activation);
        base.Activate(activation);
        if (_pages != null)
            return;
        _pages = new BalloonPages(activation.Memory, Counters);
        _pages.Restore(_restored);
        _restored = [];
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        base.Reset();
        // A driver that starts anew has all of its memory; the target stays.
        _pages = null;
        _restored = [];
        Counters.SetInflated(0);
        Statistics.Clear();
        Volatile.Write(ref _actual, 0);
    }

    /// <inheritdoc/>
    public override VirtioDeviceState Save() =>
        new BalloonState { NumPages = _numPages, Actual = _actual, Inflated = _pages?.Save() ?? _restored };

    /// <inheritdoc/>
    public override void Restore(VirtioDeviceState state)
    {
        const string name = "balloon";
        BalloonState saved = DeviceStates.Require<BalloonState>(name, state);
        SavedState.RequireVersion(name, saved.Version, BalloonState.CurrentVersion);
        if (!AreRuns(saved.Inflated))
            throw VmmException.Configuration("Cannot restore the balloon: its saved pages are not an ascending list of runs. The snapshot is damaged; take another.");
        _restored = saved.Inflated;
        _pages = null;
        Volatile.Write(ref _numPages, saved.NumPages);
        Volatile.Write(ref _actual, saved.Actual);
    }

    /// <inheritdoc/>
    public override void ReportCounters(ICounterSink sink)
    {
        base.ReportCounters(sink);
        sink.Add("target_bytes", (long)Target);
        sink.Add("actual_bytes", (long)Actual);
        Counters.Report(sink);
        Statistics.Report(sink);
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        Loop.Remove(_statsTimer.Number);
        _statsTimer.Dispose();
        base.Dispose(disposing);
    }

    private static bool AreRuns(IReadOnlyList<uint>? runs)
    {
        if (runs is null || runs.Count % 2 != 0)
            return false;
        ulong least = 0;
        for (int i = 0; i < runs.Count; i += 2)
        {
            if (runs[i] < least || runs[i + 1] == 0 || (ulong)runs[i] + runs[i + 1] > 1UL << 32)
                return false;
            least = (ulong)runs[i] + runs[i + 1] + 1;
        }
        return true;
    }

    private static BalloonConfig Checked(BalloonConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        config.Validate();
        return config;
    }

    // Its queues share the map of pages, so they share a thread.
    private static EventLoop[] FirstOf(IReadOnlyList<EventLoop> loops)
    {
        ArgumentNullException.ThrowIfNull(loops);
        ArgumentOutOfRangeException.ThrowIfZero(loops.Count);
        return [loops[0]];
    }

    private sealed class StatsTimerHandler(BalloonDevice device) : IEventHandler
    {
        public bool Handle()
        {
            device.AskForStatistics();
            return false;
        }
    }
}
