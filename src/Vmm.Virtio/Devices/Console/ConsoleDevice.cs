using System.Buffers.Binary;
using Vmm.Core;
using Vmm.Core.Events;
using Vmm.Devices;
using Vmm.Virtio.Queues;
using static Vmm.Virtio.Devices.Console.ConsoleProtocol;

namespace Vmm.Virtio.Devices.Console;

/// <summary>
/// A console (VIRTIO 1.3 §5.3): the guest's hvc0 on port 0, and named ports beside it where there are any. Nothing is lost either way: what a
/// sink has no room for stays in the guest's buffer, and input that the guest has no buffer for stays where it came from.
/// </summary>
public sealed class ConsoleDevice : InProcessDevice
{
    /// <summary>Bytes of input that wait in the device, for each port.</summary>
    public const int InputCapacity = 16 << 10;

    /// <summary>The most ports beside the console, as QEMU's device has.</summary>
    public const int MaximumPorts = 30;

    /// <summary>Descriptors of each queue: Linux fills the receive queue with one page each.</summary>
    private const ushort QueueSize = 64;

    /// <summary>After that many control messages the others of the loop have their turn.</summary>
    private const int MaximumMessagesPerTurn = 64;

    private const string Name = "console device";

    private readonly ConsolePort[] _ports;
    private readonly ConsoleControl? _control;
    private readonly IBufferedCharacterSink _sink;

    // There is input, or room for output: other threads may not schedule a queue themselves.
    private readonly EventNotifier _wake = new();

    // Somebody waits until everything is written.
    private ManualResetEventSlim? _drained;
    private uint _size;

    /// <summary>Makes a device.</summary>
    /// <param name="config">What was asked for.</param>
    /// <param name="sink">Takes what the guest writes to its console; its <see cref="IBufferedCharacterSink.RoomAvailable"/> is set.</param>
    /// <param name="loops">Who serves its queues: the first.</param>
    /// <param name="ports">The host's ends of ports beside the console, at most <see cref="MaximumPorts"/>; they are the guest's ports 1, 2, ...</param>
    public ConsoleDevice(ConsoleConfig config, IBufferedCharacterSink sink, IReadOnlyList<EventLoop> loops, IReadOnlyList<ConsolePortEnd>? ports = null)
        : base(IdOf(config), VirtioDeviceType.Console, QueueSizesFor(ports?.Count ?? 0), FirstOf(loops))
    {
        ArgumentNullException.ThrowIfNull(sink);
        _sink = sink;
        _size = Pack(config.Columns, config.Rows);
        Action wake = _wake.Signal;
        _ports = new ConsolePort[1 + (ports?.Count ?? 0)];
        _ports[0] = new ConsolePort(sink, null, Counters, wake) { InputRoom = () => ReceiveSpaceAvailable?.Invoke() };
        for (int i = 1; i < _ports.Length; i++)
        {
            ConsolePortEnd end = ports![i - 1];
            _ports[i] = new ConsolePort(end, end, Counters, wake) { InputRoom = end.OnInputRoom };
        }
        if (_ports.Length > 1)
            _control = new ConsoleControl(_ports, config.HasConsole);
        LoopOf(ReceiveQueue).Add(_wake.Number, new WakeHandler(this));
        foreach (ConsolePort port in _ports)
            port.End?.Connect(port);
    }

    /// <summary>What it did, with all its ports.</summary>
    public ConsoleCounters Counters { get; } = new();

    /// <summary>
    /// Called when the guest made room after <see cref="Receive"/> took less than it was offered. Runs on the loop's thread with no lock
    /// held; it returns soon and does not throw. Set before the guest runs.
    /// </summary>
    public Action? ReceiveSpaceAvailable { get; set; }

    /// <inheritdoc/>
    public override ulong OfferedFeatures => VirtioFeatures.AllQueues | SizeFeature | EmergencyWrite | (_control != null ? MultiPort : 0);

    /// <inheritdoc/>
    public override int ConfigurationLength => ConsoleProtocol.ConfigurationLength;

    /// <summary>Gives the guest's console input, also before its driver is ready: as much as there is room for. Any thread.</summary>
    /// <returns>How many bytes were taken; when fewer than given, <see cref="ReceiveSpaceAvailable"/> follows.</returns>
    public int Receive(ReadOnlySpan<byte> data) => _ports[0].Receive(data);

    /// <summary>The terminal has another size. Any thread.</summary>
    /// <param name="columns">Characters in a line; 0 when it is not known.</param>
    /// <param name="rows">Lines.</param>
    public void SetSize(ushort columns, ushort rows)
    {
        uint size = Pack(columns, rows);
        if (Interlocked.Exchange(ref _size, size) != size && Activation is { } activation && activation.Has(SizeFeature))
            activation.Host.SignalConfigurationChange();
    }

    /// <summary>
    /// Waits until all that the guest has made available for output was taken by its sinks. For the end of a machine, when no vCPU runs any more
    /// and the queues still do; not on the loop's thread.
    /// </summary>
    /// <param name="cancel">Ends the wait.</param>
    /// <returns>False where it was cancelled.</returns>
    public bool WaitUntilWritten(CancellationToken cancel)
    {
        using var drained = new ManualResetEventSlim();
        LoopOf(ReceiveQueue).Invoke(() =>
        {
            _drained = drained;
            for (int i = 0; i < _ports.Length; i++)
            {
                int queue = ReceiveQueueOf(i) + 1;
                _ports[i].IsDry = RunningQueue(queue) is not { IsBroken: false };
                ScheduleQueue(queue);
            }
            CheckDrained();
        });
        try
        {
            drained.Wait(cancel);
            return true;
        }
        catch (OperationCanceledException)
        {
            return false;
        }
        finally
        {
            LoopOf(ReceiveQueue).Invoke(() => _drained = null);
        }
    }

    /// <inheritdoc/>
    public override void ReadConfiguration(int offset, Span<byte> data)
    {
        Span<byte> whole = stackalloc byte[ConsoleProtocol.ConfigurationLength];
        whole.Clear();
        uint size = Volatile.Read(ref _size);
        BinaryPrimitives.WriteUInt16LittleEndian(whole[ColumnsOffset..], (ushort)size);
        BinaryPrimitives.WriteUInt16LittleEndian(whole[RowsOffset..], (ushort)(size >> 16));
        BinaryPrimitives.WriteUInt32LittleEndian(whole[MaximumPortsOffset..], (uint)_ports.Length);
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
        // The ends are told on the loop, as always.
        LoopOf(ReceiveQueue).Invoke(() =>
        {
            foreach (ConsolePort port in _ports)
                port.Reset();
        });
    }

    /// <inheritdoc/>
    public override VirtioDeviceState Save()
    {
        ConsolePortState console = _ports[0].Save();
        return new ConsoleState
        {
            Columns = (ushort)_size,
            Rows = (ushort)(_size >> 16),
            Input = console.Input,
            Transmitted = console.Transmitted,
            Flags = console.Flags,
            Ports = [.. _ports.Skip(1).Select(port => port.Save())],
        };
    }

    /// <inheritdoc/>
    public override void Restore(VirtioDeviceState state)
    {
        ConsoleState saved = DeviceStates.Require<ConsoleState>(Name, state);
        SavedState.RequireVersion(Name, saved.Version, ConsoleState.CurrentVersion);
        SavedState.RequireLength(Name, "input", saved.Input, 0, InputCapacity);
        if (saved.Ports is null || saved.Ports.Count != _ports.Length - 1)
            throw VmmException.Configuration($"The saved state of the {Name} is of {saved.Ports?.Count ?? 0} ports beside the console, and there are {_ports.Length - 1}; give the machine the same.");
        foreach (ConsolePortState port in saved.Ports)
            SavedState.RequireLength(Name, "input of a port", port.Input, 0, InputCapacity);
        _ports[0].Restore(new ConsolePortState(saved.Flags, saved.Input, saved.Transmitted, false));
        for (int i = 1; i < _ports.Length; i++)
            _ports[i].Restore(saved.Ports[i - 1]);
        Volatile.Write(ref _size, Pack(saved.Columns, saved.Rows));
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
        if (IsTransmit(queue.Index))
            _ports[PortOf(queue.Index)].TransmitStarted(queue);
    }

    /// <inheritdoc/>
    protected override void QueueStopping(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        if (IsTransmit(queue.Index))
            _ports[PortOf(queue.Index)].TransmitStopping(queue);
        queue.Flush();
    }

    /// <inheritdoc/>
    protected override bool WantsDoorbell(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        return queue.Index switch
        {
            ControlReceiveQueue => _control!.HasMessage,
            ControlTransmitQueue => true,
            _ when IsTransmit(queue.Index) => !_ports[PortOf(queue.Index)].IsStalled,
            _ => HasInput(PortOf(queue.Index)),
        };
    }

    /// <inheritdoc/>
    protected override bool ServeQueue(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        bool more = queue.Index switch
        {
            ControlReceiveQueue => SendMessages(queue),
            ControlTransmitQueue => TakeMessages(queue),
            _ when IsTransmit(queue.Index) => Transmit(queue),
            _ => Deliver(queue),
        };
        queue.Flush();
        return more;
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        foreach (ConsolePort port in _ports)
            port.Disconnect();
        LoopOf(ReceiveQueue).Remove(_wake.Number);
        _wake.Dispose();
        base.Dispose(disposing);
    }

    private bool Transmit(VirtQueue queue)
    {
        bool more = _ports[PortOf(queue.Index)].Transmit(queue);
        CheckDrained();
        return more;
    }

    private bool Deliver(VirtQueue queue)
    {
        ConsolePort port = _ports[PortOf(queue.Index)];
        if (!HasInput(PortOf(queue.Index)))
            return false;
        bool more = port.Deliver(queue);
        if (port.IsHangUpDue)
        {
            // Behind the last of the input, which the driver is to find first.
            queue.Flush();
            ScheduleQueue(ControlReceiveQueue);
        }
        return more;
    }

    // With ports, input waits until the guest has opened its end: Linux throws away what comes before. Port 0 alone is open always.
    private bool HasInput(int port) =>
        !_ports[port].Input.IsEmpty && (_ports[port].Has(ConsolePortFlags.GuestOpen) || (port == 0 && Activation?.Has(MultiPort) != true));

    private bool TakeMessages(VirtQueue queue)
    {
        Span<byte> message = stackalloc byte[ControlLength];
        bool more = true;
        for (int messages = 0; messages < MaximumMessagesPerTurn; messages++)
        {
            if (!queue.TryTake(out DescriptorChain? chain))
            {
                more = false;
                break;
            }
            if (chain.WritableLength > 0)
            {
                queue.Break("a control message has a part that is not to be read");
                return false;
            }
            int length = chain.Read(0, message);
            if (_control!.Handle(message[..length]) is { } closed)
                ScheduleQueue(ReceiveQueueOf(closed) + 1);
            queue.GiveBack(chain, 0);
        }
        ScheduleQueue(ControlReceiveQueue);
        // An end that was opened may have input waiting for it.
        for (int i = 0; i < _ports.Length; i++)
        {
            if (HasInput(i))
                ScheduleQueue(ReceiveQueueOf(i));
        }
        return more;
    }

    private bool SendMessages(VirtQueue queue)
    {
        Span<byte> message = stackalloc byte[ConsoleControl.LongestMessage];
        for (int messages = 0; messages < MaximumMessagesPerTurn; messages++)
        {
            if (!_control!.HasMessage || !queue.TryTake(out DescriptorChain? chain))
                return false;
            if (chain.ReadableLength > 0)
            {
                queue.Break("a buffer for a control message has a part that the device cannot write");
                return false;
            }
            int length = _control.Next(message);
            // Linux has a page for each; a driver with less finds the message cut.
            queue.GiveBack(chain, (uint)chain.Write(0, message[..length]));
        }
        return true;
    }

    private void CheckDrained()
    {
        if (_drained is not { } waiter)
            return;
        foreach (ConsolePort port in _ports)
        {
            if (!port.IsDry)
                return;
        }
        _drained = null;
        waiter.Set();
    }

    private void Wake()
    {
        for (int i = 0; i < _ports.Length; i++)
        {
            ConsolePort port = _ports[i];
            if (HasInput(i))
                ScheduleQueue(ReceiveQueueOf(i));
            if (port.IsHangUpDue)
                ScheduleQueue(ControlReceiveQueue);
            if (port.IsStalled)
            {
                port.IsStalled = false;
                ScheduleQueue(ReceiveQueueOf(i) + 1);
            }
        }
    }

    private static bool IsTransmit(int queue) => (queue & 1) == 1 && queue != ControlTransmitQueue;

    private static uint Pack(ushort columns, ushort rows) => columns | (uint)rows << 16;

    private static string IdOf(ConsoleConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        return config.Id;
    }

    private static ushort[] QueueSizesFor(int ports)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(ports, MaximumPorts);
        ushort[] sizes = new ushort[ports == 0 ? 2 : ReceiveQueueOf(ports) + 2];
        Array.Fill(sizes, QueueSize);
        return sizes;
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
