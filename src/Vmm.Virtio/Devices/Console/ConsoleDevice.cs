using System.Buffers.Binary;
using Vmm.Core.Events;
using Vmm.Devices;
using Vmm.Virtio.Queues;
using static Vmm.Virtio.Devices.Console.ConsoleProtocol;

namespace Vmm.Virtio.Devices.Console;

/// <summary>
/// A console with one port (VIRTIO 1.3 §5.3): the guest's hvc0. Nothing is lost either way: what the sink has no room for stays in the
/// guest's buffer, and input that the guest has no buffer for stays where it came from.
/// </summary>
public sealed class ConsoleDevice : InProcessDevice
{
    /// <summary>Bytes of input that wait in the device.</summary>
    public const int InputCapacity = 16 << 10;

    /// <summary>Descriptors of each queue: Linux fills the receive queue with one page each.</summary>
    private const ushort QueueSize = 64;

    /// <summary>After that many bytes the others of the loop have their turn.</summary>
    private const int MaximumBytesPerTurn = 64 << 10;

    /// <summary>After that many buffers too: Linux writes single characters.</summary>
    private const int MaximumRequestsPerTurn = 64;

    private const string Name = "console device";

    private readonly IBufferedCharacterSink _sink;
    private readonly ConsoleInput _input = new(InputCapacity);

    // There is input, or room for output: other threads may not schedule a queue themselves.
    private readonly EventNotifier _wake = new();

    private readonly Action _roomAvailable;
    private DescriptorChain? _transmitting;
    private ulong _transmitted;
    private VirtQueueState? _stoppedAt;
    private bool _stalled;
    private uint _size;

    /// <summary>Makes a device.</summary>
    /// <param name="config">What was asked for.</param>
    /// <param name="sink">Takes what the guest writes; its <see cref="IBufferedCharacterSink.RoomAvailable"/> is set.</param>
    /// <param name="loops">Who serves its queues: the first.</param>
    public ConsoleDevice(ConsoleConfig config, IBufferedCharacterSink sink, IReadOnlyList<EventLoop> loops)
        : base(IdOf(config), VirtioDeviceType.Console, [QueueSize, QueueSize], FirstOf(loops))
    {
        ArgumentNullException.ThrowIfNull(sink);
        _sink = sink;
        _size = Pack(config.Columns, config.Rows);
        LoopOf(ReceiveQueue).Add(_wake.Number, new WakeHandler(this));
        sink.RoomAvailable = _roomAvailable = _wake.Signal;
    }

    /// <summary>What it did.</summary>
    public ConsoleCounters Counters { get; } = new();

    /// <summary>
    /// Called when the guest made room after <see cref="Receive"/> took less than it was offered. Runs on the loop's thread with no lock
    /// held; it returns soon and does not throw. Set before the guest runs.
    /// </summary>
    public Action? ReceiveSpaceAvailable { get; set; }

    /// <inheritdoc/>
    public override ulong OfferedFeatures => VirtioFeatures.AllQueues | SizeFeature | EmergencyWrite;

    /// <inheritdoc/>
    public override int ConfigurationLength => ConsoleProtocol.ConfigurationLength;

    /// <summary>Gives the guest input, also before its driver is ready: as much as there is room for. Any thread.</summary>
    /// <returns>How many bytes were taken; when fewer than given, <see cref="ReceiveSpaceAvailable"/> follows.</returns>
    public int Receive(ReadOnlySpan<byte> data)
    {
        int taken = _input.Add(data);
        if (taken > 0)
            _wake.Signal();
        return taken;
    }

    /// <summary>The terminal has another size. Any thread.</summary>
    /// <param name="columns">Characters in a line; 0 when it is not known.</param>
    /// <param name="rows">Lines.</param>
    public void SetSize(ushort columns, ushort rows)
    {
        uint size = Pack(columns, rows);
        if (Interlocked.Exchange(ref _size, size) != size && Activation is { } activation && activation.Has(SizeFeature))
            activation.Host.SignalConfigurationChange();
    }

    /// <inheritdoc/>
    public override void ReadConfiguration(int offset, Span<byte> data)
    {
        Span<byte> whole = stackalloc byte[ConsoleProtocol.ConfigurationLength];
        whole.Clear();
        uint size = Volatile.Read(ref _size);
        BinaryPrimitives.WriteUInt16LittleEndian(whole[ColumnsOffset..], (ushort)size);
        BinaryPrimitives.WriteUInt16LittleEndian(whole[RowsOffset..], (ushort)(size >> 16));
        BinaryPrimitives.WriteUInt32LittleEndian(whole[MaximumPortsOffset..], 1);
        whole.Slice(offset, data.Length).CopyTo(data);
    }

    /// <inheritdoc/>
    public override void WriteConfiguration(int offset, ReadOnlySpan<byte> data)
    {
        int at = EmergencyWriteOffset - offset;
        // The character is the lowest byte of emerg_wr (§5.3.4), whatever was negotiated: a driver in distress has no time to (§5.3.5.2).
        if (at < 0 || at >= data.Length)
            return;
        Counters.CountEmergency(lost: _sink.TryWrite(data.Slice(at, 1)) == 0);
    }

    /// <inheritdoc/>
    public override void Activate(VirtioActivation activation)
    {
        ArgumentNullException.ThrowIfNull(activation);
        base.Activate(activation);
        // Linux looks at the size only when it changes.
        if (activation.Has(SizeFeature) && Volatile.Read(ref _size) != 0)
            activation.Host.SignalConfigurationChange();
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        base.Reset();
        _transmitted = 0;
        _stoppedAt = null;
    }

    /// <inheritdoc/>
    public override VirtioDeviceState Save() => new ConsoleState
    {
        Columns = (ushort)_size,
        Rows = (ushort)(_size >> 16),
        Input = _input.ToArray(),
        Transmitted = _transmitted,
    };

    /// <inheritdoc/>
    public override void Restore(VirtioDeviceState state)
    {
        ConsoleState saved = DeviceStates.Require<ConsoleState>(Name, state);
        SavedState.RequireVersion(Name, saved.Version, ConsoleState.CurrentVersion);
        SavedState.RequireLength(Name, "input", saved.Input, 0, InputCapacity);
        _input.Set(saved.Input);
        Volatile.Write(ref _size, Pack(saved.Columns, saved.Rows));
        _transmitted = saved.Transmitted;
        _stoppedAt = null;
    }

    /// <inheritdoc/>
    public override void ReportCounters(ICounterSink sink)
    {
        base.ReportCounters(sink);
        Counters.Report(sink);
    }

    /// <inheritdoc/>
    protected override void QueueStarted(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        if (queue.Index != TransmitQueue)
            return;
        _stalled = false;
        // After a reset of the ring (§2.6.1) the buffer that was half written is no more.
        if (_stoppedAt is { } at && at != queue.State)
            _transmitted = 0;
    }

    /// <inheritdoc/>
    protected override void QueueStopping(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        if (queue.Index == TransmitQueue)
        {
            if (_transmitting is { } chain)
            {
                // The rest of it is written when the queue goes on.
                queue.Untake(chain);
                _transmitting = null;
            }
            _stoppedAt = queue.State;
        }
        queue.Flush();
    }

    /// <inheritdoc/>
    protected override bool WantsDoorbell(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        return queue.Index == TransmitQueue ? !_stalled : !_input.IsEmpty;
    }

    /// <inheritdoc/>
    protected override bool ServeQueue(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        bool more = queue.Index == TransmitQueue ? Transmit(queue) : Deliver(queue);
        queue.Flush();
        return more;
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        // The machine's next life may have connected its own already.
        if (ReferenceEquals(_sink.RoomAvailable, _roomAvailable))
            _sink.RoomAvailable = null;
        LoopOf(ReceiveQueue).Remove(_wake.Number);
        _wake.Dispose();
        base.Dispose(disposing);
    }

    private bool Transmit(VirtQueue queue)
    {
        int bytes = 0;
        for (int requests = 0; requests < MaximumRequestsPerTurn; requests++)
        {
            if (_transmitting == null)
            {
                if (!queue.TryTake(out _transmitting))
                    return false;
                if (_transmitting.WritableLength > 0)
                {
                    _transmitting = null;
                    queue.Break("a buffer with output has a part that is not to be read");
                    return false;
                }
            }
            if (!Transmit(_transmitting, ref bytes))
                return !_stalled;
            queue.GiveBack(_transmitting, 0);
            _transmitting = null;
            _transmitted = 0;
        }
        return true;
    }

    /// <summary>Writes what the sink and this turn have room for; true when that was all.</summary>
    private bool Transmit(DescriptorChain chain, ref int bytes)
    {
        ulong skip = _transmitted;
        foreach (GuestSegment segment in chain.Readable)
        {
            ulong at = Math.Min(skip, segment.Length);
            skip -= at;
            while (at < segment.Length)
            {
                int part = (int)Math.Min(segment.Length - at, (ulong)(MaximumBytesPerTurn - bytes));
                if (part == 0)
                    return false;
                // The sink copies; a guest that changes the bytes meanwhile changes its own output.
                int taken = _sink.TryWrite(Span(segment, at, part));
                at += (ulong)taken;
                _transmitted += (ulong)taken;
                bytes += taken;
                Counters.CountOutput(taken);
                if (taken < part)
                {
                    _stalled = true;
                    Counters.CountStall();
                    return false;
                }
            }
        }
        return true;
    }

    private bool Deliver(VirtQueue queue)
    {
        int bytes = 0;
        for (int requests = 0; requests < MaximumRequestsPerTurn && bytes < MaximumBytesPerTurn; requests++)
        {
            if (_input.IsEmpty || !queue.TryTake(out DescriptorChain? chain))
                return false;
            if (chain.ReadableLength > 0)
            {
                queue.Break("a buffer for input has a part that the device cannot write");
                return false;
            }
            uint filled = 0;
            bool tell = false;
            ReadOnlySpan<byte> data;
            // Twice at most: the ring's end and its beginning.
            while (filled < chain.WritableLength && !(data = _input.Peek()).IsEmpty)
            {
                int written = chain.Write(filled, data);
                tell |= _input.Advance(written);
                filled += (uint)written;
                if (filled >= InputCapacity)
                    break;
            }
            queue.GiveBack(chain, filled);
            Counters.CountInput((int)filled);
            bytes += (int)filled;
            if (tell)
                ReceiveSpaceAvailable?.Invoke();
        }
        return true;
    }

    private void Wake()
    {
        if (!_input.IsEmpty)
            ScheduleQueue(ReceiveQueue);
        if (_stalled)
        {
            _stalled = false;
            ScheduleQueue(TransmitQueue);
        }
    }

    // Safe: the range lies inside a segment, which was checked to be RAM when its descriptor was read.
    private static unsafe ReadOnlySpan<byte> Span(GuestSegment segment, ulong at, int length) =>
        new((byte*)segment.Host + at, length);

    private static uint Pack(ushort columns, ushort rows) => columns | (uint)rows << 16;

    private static string IdOf(ConsoleConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        return config.Id;
    }

    private static EventLoop[] FirstOf(IReadOnlyList<EventLoop> loops)
    {
        ArgumentNullException.ThrowIfNull(loops);
        ArgumentOutOfRangeException.ThrowIfZero(loops.Count);
        return [loops[0]];
    }

    private sealed class WakeHandler(ConsoleDevice device) : IEventHandler
    {
        public bool Handle()
        {
            device.Wake();
            return false;
        }
    }
}
