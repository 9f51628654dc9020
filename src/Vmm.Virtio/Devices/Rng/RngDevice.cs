using Vmm.Core.Events;
using Vmm.Devices;
using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Devices.Rng;

/// <summary>
/// An entropy device (VIRTIO 1.3 §5.4). The kernel writes into the guest's buffers directly; a guest that asks for much gets it in small
/// parts, since a buffer may come back part filled (§5.4.6.1).
/// </summary>
public sealed class RngDevice : InProcessDevice
{
    /// <summary>Descriptors of the queue: Linux keeps one buffer of 64 bytes in it, others a few.</summary>
    private const ushort QueueSize = 64;

    /// <summary>The most bytes of one buffer that are filled: 64 KiB take the kernel about 0.2 ms, and every other queue of the loop waits for it.</summary>
    private const int MaximumBytesPerRequest = 64 << 10;

    /// <summary>After that many bytes the others of the loop have their turn.</summary>
    private const int MaximumBytesPerTurn = 64 << 10;

    /// <summary>After that many buffers too: tiny ones cost a system call each.</summary>
    private const int MaximumRequestsPerTurn = 64;

    /// <summary>Hardware generators and a booting kernel cannot be waited for with epoll.</summary>
    private const long RetryNanoseconds = 10_000_000;

    private readonly EntropySource _source;
    private readonly TimerNotifier _retry = new();
    private bool _waiting;

    /// <summary>Opens the source and makes a device.</summary>
    /// <param name="config">What was asked for.</param>
    /// <param name="loops">Who serves its queue: the first.</param>
    /// <exception cref="Core.VmmException">The source cannot be used.</exception>
    public RngDevice(RngConfig config, IReadOnlyList<EventLoop> loops)
        : base(IdOf(config), VirtioDeviceType.Entropy, [QueueSize], loops)
    {
        _source = EntropySource.Open(config.Source);
        LoopOf(RngProtocol.RequestQueue).Add(_retry.Number, new RetryHandler(this));
    }

    /// <summary>What it did.</summary>
    public RngCounters Counters { get; } = new();

    /// <inheritdoc/>
    public override ulong OfferedFeatures => VirtioFeatures.AllQueues;

    /// <inheritdoc/>
    public override int ConfigurationLength => 0;

    /// <inheritdoc/>
    public override void ReadConfiguration(int offset, Span<byte> data) => data.Clear();

    /// <inheritdoc/>
    public override VirtioDeviceState Save() => new RngState();

    /// <inheritdoc/>
    public override void Restore(VirtioDeviceState state) =>
        SavedState.RequireVersion("entropy device", DeviceStates.Require<RngState>("entropy device", state).Version, RngState.CurrentVersion);

    /// <inheritdoc/>
    public override void ReportCounters(ICounterSink sink)
    {
        base.ReportCounters(sink);
        Counters.Report(sink);
    }

    /// <inheritdoc/>
    protected override void QueueStarted(VirtQueue queue) => _waiting = false;

    /// <inheritdoc/>
    protected override void QueueStopping(VirtQueue queue) => _retry.Disarm();

    /// <inheritdoc/>
    protected override bool WantsDoorbell(VirtQueue queue) => !_waiting;

    /// <inheritdoc/>
    protected override bool ServeQueue(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        int bytes = 0;
        int requests = 0;
        while (!_waiting && bytes < MaximumBytesPerTurn && requests < MaximumRequestsPerTurn && queue.TryTake(out DescriptorChain? chain))
        {
            if (chain.ReadableCount > 0)
            {
                // §5.4.6.1: the driver must not place driver-readable buffers into the queue.
                queue.Break("a buffer for entropy has a part that the device cannot write");
                return false;
            }
            int filled = Fill(chain);
            if (filled == 0)
            {
                queue.Untake(chain);
                _waiting = true;
                Counters.CountWait();
                _retry.Arm(RetryNanoseconds);
                break;
            }
            queue.GiveBack(chain, (uint)filled);
            Counters.CountBytes(filled);
            bytes += filled;
            requests++;
        }
        queue.Flush();
        return bytes >= MaximumBytesPerTurn || requests == MaximumRequestsPerTurn;
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        LoopOf(RngProtocol.RequestQueue).Remove(_retry.Number);
        _retry.Dispose();
        _source.Dispose();
        base.Dispose(disposing);
    }

    private int Fill(DescriptorChain chain)
    {
        int filled = 0;
        foreach (GuestSegment segment in chain.Writable)
        {
            int wanted = (int)Math.Min(segment.Length, (nuint)(MaximumBytesPerRequest - filled));
            int got = _source.Fill(segment.Host, wanted);
            filled += got;
            if (got < wanted || filled == MaximumBytesPerRequest)
                break;
        }
        return filled;
    }

    private static string IdOf(RngConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        return config.Id;
    }

    private sealed class RetryHandler(RngDevice device) : IEventHandler
    {
        public bool Handle()
        {
            device._waiting = false;
            device.ScheduleQueue(RngProtocol.RequestQueue);
            return false;
        }
    }
}
