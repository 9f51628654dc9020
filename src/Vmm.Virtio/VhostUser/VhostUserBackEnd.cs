using Vmm.Core;
using Vmm.Core.Events;
using Vmm.Core.Interop;
using Vmm.Core.Sockets;
using Vmm.Virtio.VhostUser.Protocol;

namespace Vmm.Virtio.VhostUser;

/// <summary>
/// The back-end of a device and the connection to it, which outlive reboots of the guest. All that is said to the back-end is said by one
/// thread, the worker; other threads leave it commands. What the back-end asks for comes on a thread of its own.
/// </summary>
/// <remarks>
/// Locks, each a leaf: that of the commands; that of the configuration space; and the device's own over its mappings. The worker holds
/// none of them while it waits for the back-end.
/// </remarks>
public sealed partial class VhostUserBackEnd : IBackEndRequests, IDisposable
{
    // So often is somebody looked for who can never be taken.
    private const int RefusedRetry = 1_000;

    // At least so long between two looks at errors on queues, and between two sentences that are the same. Milliseconds.
    private const int RingErrorPause = 100;
    private const int SayAgain = 10_000;

    private readonly VhostUserSettings _settings;
    private readonly Action<string> _log;
    private readonly EventNotifier _wake = new();
    private readonly EventNotifier _ringError = new(isShared: true);
    private readonly Thread _worker;
    private readonly object _commandLock = new();
    private readonly LinkedList<(CommandKind Kind, Action Action)> _commands = new();
    private readonly UnixListener? _listener;
    private readonly Func<UnixStream?>? _connect;
    private readonly Timer _end;
    private bool _disposed;

    // Nothing is said to anybody any more: a wait for this one is cut off, and no other is looked for. And the connection that a wait may be in.
    private volatile bool _isOver;
    private volatile MainChannel? _talking;

    // Null before there was one.
    private BackEndOffer? _offer;

    // The worker's own.
    private MainChannel? _channel;
    private BackEndChannel? _requests;
    private long _retryAt;
    private string? _lastFailure;
    private string? _saidOnce;
    private long _saidOnceAt;
    private long _nextRingError;
    private bool _ringErrorTold;

    // Set by the request channel's thread.
    private string? _channelEnded;

    private VhostUserBackEnd(VhostUserSettings settings, Action<string> log, Func<UnixStream?>? connect)
    {
        _settings = settings;
        _log = log;
        _connect = connect;
        _listener = settings.Server ? UnixListener.Listen(settings.Socket, $"the vhost-user socket of {settings.Id}") : null;
        _rings = new Ring[settings.QueueSizes.Count];
        for (int i = 0; i < _rings.Length; i++)
            _rings[i] = new Ring(i);
        _end = new Timer(_ => CutOff());
        if (settings.HasControlQueue)
        {
            _initialMac = ConfiguredMac;
            _netSettings = new Devices.Net.NetSettings(_initialMac);
            _netControl = new Devices.Net.NetControl(_netSettings, this, ControlledPairs);
        }
        _worker = new Thread(Main, maxStackSize: 512 * 1024) { IsBackground = true, Name = $"vu-{settings.Id}" };
    }

    /// <summary>What of the device is decided on this side.</summary>
    public VhostUserSettings Settings => _settings;

    /// <summary>What happened to the connection.</summary>
    public VhostUserCounters Counters { get; } = new();

    /// <summary>What the first back-end said of itself; each that comes after it is held to that.</summary>
    internal BackEndOffer Offer => _offer!;

    /// <summary>Connects to a back-end, or waits for one that connects, and finds out what it can do.</summary>
    /// <param name="settings">Where it is, and what is wanted of it.</param>
    /// <param name="log">Takes sentences about it. Any thread; it does not wait.</param>
    /// <param name="patience">How long a back-end may take to come, in milliseconds; -1 for ever.</param>
    /// <param name="cancel">Ends the wait.</param>
    /// <exception cref="VmmException">Nobody came, or it cannot be that device.</exception>
    public static VhostUserBackEnd Open(VhostUserSettings settings, Action<string> log, int patience, CancellationToken cancel = default) =>
        Open(settings, log, patience, null, cancel);

    /// <summary>The same, with another way to connect.</summary>
    internal static VhostUserBackEnd Open(VhostUserSettings settings, Action<string> log, int patience, Func<UnixStream?>? connect, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(settings);
        ArgumentNullException.ThrowIfNull(log);
        settings.Validate();
        var backEnd = new VhostUserBackEnd(settings, log, connect);
        try
        {
            if (settings.Display is { } display)
                backEnd._display = new Gpu.HeadlessDisplay(settings.Id, display, log);
            backEnd.ConnectFirst(patience, cancel);
            backEnd._worker.Start();
            return backEnd;
        }
        catch
        {
            backEnd.Dispose();
            throw;
        }
    }

    /// <summary>
    /// The machine is about to end: whatever is still to be said to the back-end is said soon (5 s), or it is cut off. Any thread.
    /// </summary>
    public void BeginEnd()
    {
        try
        {
            _ = _end.Change(_settings.Timeouts.End, Timeout.Infinite);
        }
        catch (ObjectDisposedException)
        {
            // It has ended.
        }
    }

    /// <summary>Lets the back-end go, without waiting for it. No device uses it any more.</summary>
    public void Dispose()
    {
        lock (_commandLock)
        {
            if (_disposed)
                return;
            _disposed = true;
        }
        _end.Dispose();
        CutOff();
        _wake.Signal();
        if ((_worker.ThreadState & ThreadState.Unstarted) == 0)
            _worker.Join();
        Close();
        _display?.Dispose();
        _inflight?.Dispose();
        _listener?.Dispose();
        _wake.Dispose();
        _ringError.Dispose();
    }

    /// <summary>Ends the connection, whoever waits in it, for good. Any thread.</summary>
    private void CutOff()
    {
        // In this order: who begins to talk looks the other way round.
        _isOver = true;
        _talking?.Shutdown();
    }

    /// <summary>
    /// Leaves the worker a command, and does not wait, as a vCPU may be the caller. They are done in their order. A guest cannot leave many:
    /// a queue that was started is stopped once, and started again only after the worker has stopped it; nor do resets add up.
    /// </summary>
    private void Post(Action command, CommandKind kind = CommandKind.Other)
    {
        lock (_commandLock)
        {
            if (_disposed)
                return;
            // A driver that got no further than this is forgotten, and so is a reset after a reset.
            while (kind == CommandKind.Reset && _commands.Last?.Value.Kind is CommandKind.Activate or CommandKind.Reset)
                _commands.RemoveLast();
            _commands.AddLast((kind, command));
        }
        _wake.Signal();
    }

    /// <summary>The same, and waits until it is done.</summary>
    private T Invoke<T>(Func<T> command)
    {
        var done = new TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously);
        Post(() =>
        {
            try
            {
                done.SetResult(command());
            }
#pragma warning disable CA1031 // Whoever waits gets it.
            catch (Exception e)
            {
                done.SetException(e);
            }
#pragma warning restore CA1031
        });
        lock (_commandLock)
        {
            if (_disposed)
                throw VmmException.Host($"{_settings.Id} has been taken away.");
        }
        return done.Task.GetAwaiter().GetResult();
    }

    private void Main()
    {
        ThreadName.Publish();
        while (true)
        {
            WaitForWork();
            while (TryTakeCommand(out Action? command))
                Guard(command);
            lock (_commandLock)
            {
                if (_disposed && _commands.Count == 0)
                    return;
            }
            Guard(ServeControl);
            Guard(Look);
        }
    }

    private bool TryTakeCommand([System.Diagnostics.CodeAnalysis.NotNullWhen(true)] out Action? command)
    {
        lock (_commandLock)
        {
            command = _commands.First?.Value.Action;
            if (command != null)
                _commands.RemoveFirst();
            return command != null;
        }
    }

    /// <summary>Does something that the back-end may make fail.</summary>
    private void Guard(Action action)
    {
        try
        {
            action();
        }
        catch (BackEndException e) when (e.IsRefusal)
        {
            SayOnce(e.Message);
        }
        catch (BackEndException e)
        {
            Break(e.Message);
        }
#pragma warning disable CA1031 // A mistake of ours costs this device, not the machine.
        catch (Exception e)
        {
            Break($"this program failed, which is a defect: {e.GetType().Name}: {e.Message}");
        }
#pragma warning restore CA1031
    }

    private unsafe void WaitForWork()
    {
        pollfd* wanted = stackalloc pollfd[4];
        wanted[0] = new pollfd { fd = _wake.Number, events = LibC.POLLIN };
        // Who is gone may have it still.
        wanted[1] = new pollfd { fd = _channel != null ? _ringError.Number : -1, events = LibC.POLLIN };
        // Below 0, poll leaves it out.
        wanted[2] = new pollfd { fd = _channel?.Number ?? _listener?.Number ?? -1, events = LibC.POLLIN };
        if (_channel == null && !IsLookedFor)
            wanted[2].fd = -1;
        wanted[3] = new pollfd { fd = ControlNumber, events = LibC.POLLIN };
        long now = Environment.TickCount64;
        long at = Math.Min(_channel == null && IsLookedFor && _listener == null ? _retryAt : long.MaxValue, _channel != null ? ConfigurationDue : long.MaxValue);
        if (_nextRingError > now)
        {
            wanted[1].fd = -1;
            at = Math.Min(at, _channel != null ? _nextRingError : at);
        }
        // As a server, somebody who was refused may be back at once.
        if (_channel == null && _listener != null && _retryAt > now)
            (wanted[2].fd, at) = (-1, _retryAt);
        if (_controlHasMore && ControlNumber >= 0)
            at = now;
        int timeout = at == long.MaxValue ? -1 : (int)Math.Clamp(at - now, 0, int.MaxValue);
        _ = LibC.poll(wanted, 4, timeout);
        _wake.TryConsume();
    }

    /// <summary>Looks after all that is not a command.</summary>
    private void Look()
    {
        if (_channel == null)
        {
            if (IsLookedFor && Environment.TickCount64 >= _retryAt)
                Reconnect();
            return;
        }
        if (Interlocked.Exchange(ref _channelEnded, null) is { } clause)
            throw BackEndException.Broken(clause);
        if (ChannelHasInput)
            throw _channel.Explain();
        if (Environment.TickCount64 >= _nextRingError && _ringError.TryConsume())
        {
            Counters.CountRingError();
            _nextRingError = Environment.TickCount64 + RingErrorPause;
            if (!_ringErrorTold)
                Say("its back-end reports an error on one of its queues");
            _ringErrorTold = true;
        }
        ReadChangedConfiguration();
    }

    private unsafe bool ChannelHasInput
    {
        get
        {
            var wanted = new pollfd { fd = _channel!.Number, events = LibC.POLLIN };
            return LibC.poll(&wanted, 1, 0) > 0;
        }
    }

    /// <summary>Says what a guest or a back-end can make happen all the time, but not all the time.</summary>
    private void SayOnce(string clause)
    {
        long now = Environment.TickCount64;
        if (clause == _saidOnce && now - _saidOnceAt < SayAgain)
            return;
        (_saidOnce, _saidOnceAt) = (clause, now);
        Say(clause);
    }

    private void Say(string clause) => _log($"{_settings.Id}: {clause}");

    /// <summary>What a command is, where it makes another one superfluous.</summary>
    private enum CommandKind
    {
        Other,
        Activate,
        Reset,
    }
}
