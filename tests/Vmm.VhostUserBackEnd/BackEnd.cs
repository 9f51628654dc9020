using Vmm.Core.Sockets;
using Vmm.VhostUserBackEnd.Protocol;
using Vmm.VhostUserBackEnd.Rings;

namespace Vmm.VhostUserBackEnd;

/// <summary>
/// A back-end that does everything right until it is told not to. It outlives its connections, as a device does; what belongs to one connection
/// is its <see cref="BackEndSession"/>. Set the properties before the front-end connects.
/// </summary>
public sealed class BackEnd
{
    /// <summary>All that is implemented here and needs nothing of the device.</summary>
    public const ProtocolFeatures DefaultProtocolFeatures = Protocol.ProtocolFeatures.MQ | Protocol.ProtocolFeatures.LOG_SHMFD
        | Protocol.ProtocolFeatures.REPLY_ACK | Protocol.ProtocolFeatures.BACKEND_REQ | Protocol.ProtocolFeatures.CONFIG
        | Protocol.ProtocolFeatures.BACKEND_SEND_FD | Protocol.ProtocolFeatures.INFLIGHT_SHMFD | Protocol.ProtocolFeatures.RESET_DEVICE
        | Protocol.ProtocolFeatures.CONFIGURE_MEM_SLOTS | Protocol.ProtocolFeatures.DEVICE_STATE;

    private readonly Lock _gate = new();
    private readonly List<PlannedFault> _faults = [];
    private readonly List<string> _violations = [];
    private readonly List<BackEndSession> _sessions = [];
    private byte[] _config;
    private long _resubmitted;

    public BackEnd(DeviceModel device)
    {
        Device = device;
        Features = device.Features | DeviceFeatures.Version1 | DeviceFeatures.ProtocolFeatures | DeviceFeatures.LogAll
            | DeviceFeatures.IndirectDescriptors | DeviceFeatures.EventIndex;
        ShmemSizes = device.ShmemSizes;
        ProtocolFeatures = DefaultProtocolFeatures;
        if (Array.Exists(ShmemSizes, size => size != 0))
            ProtocolFeatures |= Protocol.ProtocolFeatures.SHMEM;
        QueueCount = (ulong)device.QueueCount;
        _config = device.InitialConfig;
    }

    public DeviceModel Device { get; }

    /// <summary>What GET_FEATURES answers.</summary>
    public ulong Features { get; set; }

    /// <summary>What GET_PROTOCOL_FEATURES answers.</summary>
    public ProtocolFeatures ProtocolFeatures { get; set; }

    /// <summary>What GET_QUEUE_NUM answers; the device has <see cref="DeviceModel.QueueCount"/> all the same.</summary>
    public ulong QueueCount { get; set; }

    /// <summary>What GET_MAX_MEM_SLOTS answers.</summary>
    public ulong MaxMemSlots { get; set; } = 509;

    /// <summary>What GET_SHMEM_CONFIG answers.</summary>
    public ulong[] ShmemSizes { get; set; }

    /// <summary>How many regions GET_SHMEM_CONFIG says there are; those that are not 0 where it is null.</summary>
    public uint? ShmemRegionCount { get; set; }

    /// <summary>The configuration space; setting it tells nobody (<see cref="BackEndChannel.ConfigChange"/>).</summary>
    public byte[] Config
    {
        get
        {
            lock (_gate)
                return (byte[])_config.Clone();
        }
        set
        {
            lock (_gate)
                _config = (byte[])value.Clone();
        }
    }

    /// <summary>What SET_DEVICE_STATE_FD saves; the device's own where it is null.</summary>
    public byte[]? StateToSave { get; set; }

    /// <summary>What SET_DEVICE_STATE_FD loaded last; null before.</summary>
    public byte[]? LoadedState { get; internal set; }

    /// <summary>Whether the call eventfd is written to as soon as it comes, as libvhost-user and passt do.</summary>
    public bool SignalsAtCall { get; set; }

    /// <summary>How many bytes the reply to SET_LOG_BASE has: 0, 8 and 16 are to be met.</summary>
    public int LogReplySize { get; set; } = 8;

    /// <summary>How long the front-end may take to answer a back-end request, in milliseconds.</summary>
    public int ChannelTimeout { get; set; } = 10_000;

    /// <summary>Everything that was said.</summary>
    public Transcript Transcript { get; } = new();

    /// <summary>What the front-end has done that vhost-user.rst does not allow. Empty is what a test wants to see.</summary>
    public IReadOnlyList<string> Violations
    {
        get
        {
            lock (_gate)
                return [.. _violations];
        }
    }

    /// <summary>All connections there have been, the newest last.</summary>
    public IReadOnlyList<BackEndSession> Sessions
    {
        get
        {
            lock (_gate)
                return [.. _sessions];
        }
    }

    /// <summary>The newest connection, which may have ended; null where there has been none.</summary>
    public BackEndSession? Session
    {
        get
        {
            lock (_gate)
                return _sessions.Count == 0 ? null : _sessions[^1];
        }
    }

    /// <summary>How many requests were served again because a predecessor had not given them back (INFLIGHT_SHMFD).</summary>
    public long Resubmitted => Interlocked.Read(ref _resubmitted);

    /// <summary>In place of the device's own handler of chains, where it is not null.</summary>
    public Func<BackEndSession, Vring, Chain, int>? Handler { get; set; }

    /// <summary>Plans a fault.</summary>
    /// <param name="request">Where.</param>
    /// <param name="fault">What.</param>
    /// <param name="first">At which of the requests where it can be applied, counted from now; the first is 1.</param>
    /// <param name="times">At how many of them.</param>
    public PlannedFault Plan(FrontEndRequest request, Fault fault, int first = 1, int times = 1)
    {
        var planned = new PlannedFault(request, fault, first, times);
        lock (_gate)
            _faults.Add(planned);
        return planned;
    }

    public void ClearFaults()
    {
        lock (_gate)
            _faults.Clear();
    }

    /// <summary>Serves a connection until it ends.</summary>
    public BackEndSession Serve(UnixStream stream)
    {
        BackEndSession session = Begin(stream);
        session.Run();
        return session;
    }

    /// <summary>Serves a connection on a thread of its own.</summary>
    public BackEndSession ServeInBackground(UnixStream stream)
    {
        BackEndSession session = Begin(stream);
        new Thread(session.Run) { IsBackground = true, Name = "back-end" }.Start();
        return session;
    }

    internal void AddViolation(string what)
    {
        lock (_gate)
            _violations.Add(what);
        Transcript.Add(TranscriptKind.Note, $"violation: {what}");
    }

    internal void CountResubmitted(int count) => Interlocked.Add(ref _resubmitted, count);

    internal int Handle(BackEndSession session, Vring queue, Chain chain) =>
        Handler is { } handler ? handler(session, queue, chain) : Device.Handle(session, queue, chain);

    internal Fault? FaultFor(BackEndSession session, FrontEndRequest request, bool replyIsDue)
    {
        lock (_gate)
        {
            foreach (PlannedFault planned in _faults)
            {
                if (planned.Request == request && planned.TakesThis(session, replyIsDue))
                    return planned.Fault;
            }
        }
        return null;
    }

    internal bool TryWriteConfig(int offset, ReadOnlySpan<byte> data)
    {
        lock (_gate)
        {
            if (offset < 0 || offset > _config.Length || data.Length > _config.Length - offset)
                return false;
            data.CopyTo(_config.AsSpan(offset));
            return true;
        }
    }

    internal BackEndSession Begin(UnixStream stream)
    {
        var session = new BackEndSession(this, stream);
        lock (_gate)
            _sessions.Add(session);
        return session;
    }
}
