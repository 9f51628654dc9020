using System.Runtime.InteropServices;
using Vmm.Core;
using Vmm.Core.Events;
using Vmm.Virtio.Queues;
using Vmm.Virtio.RateLimiting;

namespace Vmm.Virtio.Devices.Net;

/// <summary>
/// A network card (VIRTIO 1.3 §5.1) for one life of the guest, on a back-end that outlives it. Queue 2N receives and 2N+1 transmits for
/// pair N, both on one event loop, which watches the pair's port of the back-end; the control queue follows the pairs.
/// </summary>
public sealed class NetDevice : InProcessDevice, INetControlled
{
    private const ushort ControlQueueSize = 64;

    private readonly NetConfig _config;
    private readonly INetBackend _backend;
    private readonly MacAddress _mac;
    private readonly NetSettings _settings;
    private readonly NetControl _control;
    private readonly Pair[] _pairs;
    private readonly NetCounters[] _counters;
    private ulong? _restoredOffloads;
    private bool _restored;

    /// <summary>Makes a card.</summary>
    /// <param name="config">Its options; <see cref="NetConfig.Validate"/> has accepted them.</param>
    /// <param name="backend">With a port for each pair of queues; not disposed of with the card.</param>
    /// <param name="loops">Threads for the pairs, taken in turn; at least one.</param>
    public NetDevice(NetConfig config, INetBackend backend, IReadOnlyList<EventLoop> loops)
        : base(config?.Id!, VirtioDeviceType.Network, Sizes(config!), Spread(config!.Pairs, loops))
    {
        ArgumentNullException.ThrowIfNull(backend);
        if (backend.Ports.Count != config.Pairs)
            throw new ArgumentException($"The back-end has {backend.Ports.Count} ports for {config.Pairs} pairs of queues.", nameof(backend));
        _config = config;
        _backend = backend;
        _mac = config.Mac ?? backend.DefaultMac;
        _settings = new NetSettings(_mac) { LinkUp = backend.Carrier };
        _control = new NetControl(_settings, this, config.Pairs);
        RateLimiter? receiveLimit = RateLimiter.Create(config.RateLimit);
        RateLimiter? transmitLimit = RateLimiter.Create(config.RateLimit);
        _pairs = new Pair[config.Pairs];
        _counters = new NetCounters[config.Pairs];
        for (int i = 0; i < _pairs.Length; i++)
        {
            _counters[i] = new NetCounters();
            _pairs[i] = new Pair(this, i, receiveLimit, transmitLimit);
        }
    }

    /// <inheritdoc/>
    public override ulong OfferedFeatures
    {
        get
        {
            ulong features = VirtioFeatures.AllQueues | NetFeatures.Mac | NetFeatures.Mtu | NetFeatures.Status | NetFeatures.MergeableBuffers
                | NetFeatures.CtrlVq | NetFeatures.CtrlRx | NetFeatures.CtrlRxExtra | NetFeatures.CtrlMacAddr | NetFeatures.GuestAnnounce;
            if (_pairs.Length > 1)
                features |= NetFeatures.MultiQueue;
            if (!_config.OffloadCsum)
                return features;
            ulong offloads = NetFeatures.Csum | NetFeatures.GuestCsum;
            if (_config.OffloadTso)
                offloads |= NetFeatures.AllTso;
            if (_config.OffloadUfo)
                offloads |= NetFeatures.AllUso;
            return features | NetFeatures.CtrlGuestOffloads | (offloads & _backend.Offloads);
        }
    }

    /// <inheritdoc/>
    public override int ConfigurationLength => NetConfigurationSpace.Length;

    /// <summary>The address, as the driver may have set it.</summary>
    public MacAddress Mac => _settings.Filter.Station;

    /// <summary>Whether the cable is plugged in.</summary>
    public bool LinkUp => _settings.LinkUp;

    /// <inheritdoc/>
    public override void ReadConfiguration(int offset, Span<byte> data)
    {
        NetConfigurationSpace space = default;
        Span<byte> bytes = MemoryMarshal.AsBytes(new Span<NetConfigurationSpace>(ref space));
        Mac.CopyTo(bytes);
        space.Status = (ushort)((_settings.LinkUp ? NetConfigurationSpace.LinkUp : 0) | (_settings.Announce ? NetConfigurationSpace.Announce : 0));
        space.MaxVirtqueuePairs = (ushort)_pairs.Length;
        space.Mtu = _backend.Mtu;
        bytes.Slice(offset, data.Length).CopyTo(data);
    }

    /// <inheritdoc/>
    public override void Activate(VirtioActivation activation)
    {
        ArgumentNullException.ThrowIfNull(activation);
        base.Activate(activation);
        TrySetOffloads(NetFeatures.Consistent(activation.Features & (_restoredOffloads ?? NetFeatures.GuestOffloads)));
        TrySetPairs(activation.Has(NetFeatures.MultiQueue) ? _settings.EnabledPairs : 1);
        // After it moved to this host the network has to learn where the guest is.
        if (_restored)
            Announce();
        _restored = false;
        _restoredOffloads = null;
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        base.Reset();
        _settings.Filter = NetFilter.Initial(_mac);
        _settings.Announce = false;
        _restoredOffloads = null;
        _restored = false;
        TrySetOffloads(0);
        TrySetPairs(1);
    }

    /// <summary>Plugs the cable in or out: the driver is told, and no frame passes while it is out. Any thread.</summary>
    public void SetLink(bool up)
    {
        if (_settings.LinkUp == up)
            return;
        _settings.LinkUp = up;
        _backend.Carrier = up;
        if (Activation is { } activation && activation.Has(NetFeatures.Status))
            activation.Host.SignalConfigurationChange();
    }

    /// <summary>Asks the driver to tell the network where the guest is (§5.1.6.5.4); false when it cannot be asked. Any thread.</summary>
    public bool Announce()
    {
        if (Activation is not { } activation || !activation.Has(NetFeatures.GuestAnnounce | NetFeatures.Status | NetFeatures.CtrlVq))
            return false;
        _settings.Announce = true;
        activation.Host.SignalConfigurationChange();
        return true;
    }

    /// <inheritdoc/>
    public override VirtioDeviceState Save()
    {
        NetFilter filter = _settings.Filter;
        ulong? offloads = Activation != null ? _settings.Offloads : _restoredOffloads;
        return new NetState(filter.Station, filter.Modes, filter.Unicast, filter.Multicast, _settings.EnabledPairs, offloads, _settings.LinkUp);
    }

    /// <inheritdoc/>
    public override void Restore(VirtioDeviceState state)
    {
        if (state is not NetState saved)
            throw VmmException.Configuration($"Network card {Id}: the saved state is of another kind of device.");
        if (saved.Version != NetState.CurrentVersion)
            throw VmmException.Configuration($"Network card {Id}: the saved state has version {saved.Version}, this program knows {NetState.CurrentVersion}.");
        if (saved.EnabledPairs < 1 || saved.EnabledPairs > _pairs.Length)
            throw VmmException.Configuration($"Network card {Id}: the saved state uses {saved.EnabledPairs} pairs of queues, and there are {_pairs.Length}: give num_queues={2 * saved.EnabledPairs} at least.");
        if (saved.Unicast?.Count > NetFilter.TableSize || saved.Multicast?.Count > NetFilter.TableSize || saved.Mac.IsMulticast)
            throw VmmException.Configuration($"Network card {Id}: the saved state is damaged.");
        _settings.Filter = new NetFilter(saved.Mac, saved.Modes, saved.Unicast?.ToArray(), saved.Multicast?.ToArray());
        _settings.EnabledPairs = saved.EnabledPairs;
        _restoredOffloads = saved.GuestOffloads;
        _restored = true;
        SetLink(saved.LinkUp);
    }

    /// <inheritdoc/>
    public override void ReportCounters(ICounterSink sink)
    {
        ArgumentNullException.ThrowIfNull(sink);
        base.ReportCounters(sink);
        NetCounters.Report(_counters, sink);
        long receiveWaits = 0;
        long transmitWaits = 0;
        foreach (Pair pair in _pairs)
        {
            receiveWaits += pair.ReceiveThrottle?.Waits ?? 0;
            transmitWaits += pair.TransmitThrottle?.Waits ?? 0;
        }
        sink.Add("rx_throttled", receiveWaits);
        sink.Add("tx_throttled", transmitWaits);
        sink.Add("control_commands", _control.Commands);
        sink.Add("control_errors", _control.Errors);
    }

    /// <summary>Uses this many pairs. From the control queue's thread, and from the transport while no queue runs.</summary>
    bool INetControlled.TrySetPairs(int pairs) => TrySetPairs(pairs);

    /// <summary>As above.</summary>
    bool INetControlled.TrySetOffloads(ulong offloads) => TrySetOffloads(offloads);

    /// <inheritdoc/>
    protected override bool ServeQueue(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        return RoleOf(queue.Index, out Pair? pair) switch
        {
            Role.Receive => pair!.Receiver.Serve(queue),
            Role.Transmit => pair!.Transmitter.Serve(queue),
            Role.Control => _control.Serve(queue, Activation?.Features ?? 0),
            _ => false,
        };
    }

    /// <inheritdoc/>
    protected override bool WantsDoorbell(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        return RoleOf(queue.Index, out Pair? pair) switch
        {
            Role.Receive => pair!.Receiver.IsStarved,
            Role.Transmit => pair!.Transmitter.IsServing,
            Role.Control => true,
            _ => false,
        };
    }

    /// <inheritdoc/>
    protected override void QueueStarted(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        switch (RoleOf(queue.Index, out Pair? pair))
        {
            case Role.Receive:
                pair!.Receiver.Start(Activation!);
                pair.Watch(LoopOf(queue.Index), Activation!.Host);
                break;
            case Role.Transmit:
                pair!.Transmitter.Start();
                pair.Watch(LoopOf(queue.Index), Activation!.Host);
                break;
        }
    }

    /// <inheritdoc/>
    protected override void QueueStopping(VirtQueue queue)
    {
        ArgumentNullException.ThrowIfNull(queue);
        Role role = RoleOf(queue.Index, out Pair? pair);
        if (role == Role.Receive)
            pair!.Receiver.Stop(queue);
        pair?.Unwatch(LoopOf(queue.Index));
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            foreach (Pair pair in _pairs)
            {
                pair.ReceiveThrottle?.Dispose();
                pair.TransmitThrottle?.Dispose();
            }
        }
        base.Dispose(disposing);
    }

    private static ushort[] Sizes(NetConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        var sizes = new ushort[(2 * config.Pairs) + 1];
        Array.Fill(sizes, config.QueueSize);
        sizes[^1] = ControlQueueSize;
        return sizes;
    }

    /// <summary>A loop for each queue: the two of a pair share one, and with it the port.</summary>
    private static EventLoop[] Spread(int pairs, IReadOnlyList<EventLoop> loops)
    {
        ArgumentNullException.ThrowIfNull(loops);
        ArgumentOutOfRangeException.ThrowIfZero(loops.Count);
        var spread = new EventLoop[(2 * pairs) + 1];
        for (int i = 0; i < spread.Length; i++)
            spread[i] = loops[i / 2 % loops.Count];
        return spread;
    }

    /// <summary>What a queue is for (§5.1.2): without VIRTIO_NET_F_MQ there is one pair, and the control queue follows it.</summary>
    private Role RoleOf(int queue, out Pair? pair)
    {
        pair = null;
        if (Activation is not { } activation)
            return Role.None;
        int pairs = activation.Has(NetFeatures.MultiQueue) ? _pairs.Length : 1;
        if (queue >= 2 * pairs)
            return queue == 2 * pairs && activation.Has(NetFeatures.CtrlVq) ? Role.Control : Role.None;
        pair = _pairs[queue / 2];
        return queue % 2 == 0 ? Role.Receive : Role.Transmit;
    }

    private bool TrySetOffloads(ulong offloads)
    {
        if (!_backend.TrySetGuestOffloads(offloads))
            return false;
        _settings.Offloads = offloads;
        return true;
    }

    private bool TrySetPairs(int pairs)
    {
        int before = _settings.EnabledPairs;
        for (int i = 0; i < _pairs.Length; i++)
        {
            if (_backend.Ports[i].TrySetEnabled(i < pairs))
                continue;
            while (--i >= 0)
                _backend.Ports[i].TrySetEnabled(i < before);
            return false;
        }
        _settings.EnabledPairs = pairs;
        for (int i = before; i < pairs; i++)
        {
            // What the driver made available, and the port received, before the pair was enabled has no ring of its own any more.
            int receive = 2 * i;
            LoopOf(receive).Post(() =>
            {
                ScheduleQueue(receive);
                ScheduleQueue(receive + 1);
            });
        }
        return true;
    }

    private enum Role
    {
        None,
        Receive,
        Transmit,
        Control,
    }

    /// <summary>A receive and a transmit queue and their port, which belong to one loop.</summary>
    private sealed class Pair : IEventHandler
    {
        private readonly NetDevice _device;
        private readonly INetPort _port;
        private readonly int _receive;
        private int _running;

        public Pair(NetDevice device, int index, RateLimiter? receiveLimit, RateLimiter? transmitLimit)
        {
            _device = device;
            _port = device._backend.Ports[index];
            _receive = 2 * index;
            NetSettings settings = device._settings;
            NetCounters counters = device._counters[index];
            ReceiveThrottle = Throttle(receiveLimit, _receive);
            TransmitThrottle = Throttle(transmitLimit, _receive + 1);
            Receiver = new NetReceiver(_port, settings, counters, index, device._backend.Mtu, ReceiveThrottle);
            Transmitter = new NetTransmitter(_port, settings, counters, index, transmitLimit, TransmitThrottle);
        }

        public QueueThrottle? ReceiveThrottle { get; }

        public QueueThrottle? TransmitThrottle { get; }

        public NetReceiver Receiver { get; }

        public NetTransmitter Transmitter { get; }

        /// <summary>The port has frames, or room.</summary>
        public bool Handle()
        {
            // Not blocked any more, the rest of what it has to send is a matter of its own queue's turns.
            if (Transmitter.IsBlocked && _device.ServeQueueNow(_receive + 1))
                _device.ScheduleQueue(_receive + 1);
            return _device.ServeQueueNow(_receive);
        }

        /// <summary>One more of its queues runs.</summary>
        public void Watch(EventLoop loop, IVirtioHost host)
        {
            if (_running++ > 0)
                return;
            try
            {
                loop.Add(_port.Descriptor, this, writable: true);
            }
            catch (VmmException e)
            {
                host.NeedsReset(e.Message);
            }
        }

        private QueueThrottle? Throttle(RateLimiter? limiter, int queue) =>
            limiter == null ? null : new QueueThrottle(limiter, _device.LoopOf(queue), _device.ScheduleQueue, queue);

        /// <summary>One of its queues stops.</summary>
        public void Unwatch(EventLoop loop)
        {
            if (--_running == 0)
                loop.Remove(_port.Descriptor);
        }
    }
}
