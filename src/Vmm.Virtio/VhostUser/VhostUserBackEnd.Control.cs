using Vmm.Core;
using Vmm.Devices;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.Queues;
using Vmm.Virtio.VhostUser.Protocol;

namespace Vmm.Virtio.VhostUser;

/// <summary>
/// The control queue of a network card with several pairs of queues (VIRTIO 1.3 §5.1.6.5). Back-ends have none: this side serves it, on the
/// worker, and tells the back-end which pairs are in use by enabling their rings. So a command is answered when it is done, and a back-end that takes its
/// time keeps no other device waiting.
/// </summary>
public sealed partial class VhostUserBackEnd : INetControlled
{
    /// <summary>Descriptors of a control queue.</summary>
    internal const ushort ControlQueueSize = 64;

    private readonly NetSettings? _netSettings;
    private readonly NetControl? _netControl;
    private readonly MacAddress _initialMac;
    private VirtQueue? _controlQueue;
    private QueueCounters? _controlCounters;
    private int _controlIndex = -1;

    // It stopped because of its bound, and not because nothing was left.
    private bool _controlHasMore;

    /// <summary>Pairs of data queues, where there is a control queue; else 0.</summary>
    internal int ControlledPairs => _settings.HasControlQueue ? _settings.QueueSizes.Count / 2 : 0;

    private MacAddress ConfiguredMac => _settings is { HasControlQueue: true, Configuration: { } space } ? MacAddress.From(space) : default;

    /// <summary>Serves the control queue from now on.</summary>
    internal void StartControl(VirtQueueSetup setup) => Post(() =>
    {
        if (_activation is not { } activation)
            return;
        // Its number depends on what the driver accepted.
        if (_controlIndex != setup.Index)
            (_controlIndex, _controlCounters) = (setup.Index, new QueueCounters(setup.Index));
        if (!VirtQueue.TryCreate(setup, activation, _controlCounters!, out _controlQueue, out string? problem))
            NeedsReset($"queue {setup.Index}: {problem}");
        // What was available before has no ring of its own.
        _controlHasMore = _controlQueue != null;
    });

    /// <summary>Begins to stop it.</summary>
    /// <param name="begun">Where it began, for the case that it never ran.</param>
    internal QueueStop BeginStopControl(VirtQueueState begun)
    {
        var stop = new QueueStop();
        Post(() =>
        {
            stop.Complete(_controlQueue?.State ?? begun);
            (_controlQueue, _controlHasMore) = (null, false);
        });
        lock (_commandLock)
        {
            // Nobody will do it any more.
            if (_disposed)
                stop.Complete(begun);
        }
        return stop;
    }

    /// <summary>What the driver set by the control queue; null without one. All queues are stopped.</summary>
    internal NetControlState? SaveControl() =>
        _netSettings is { } settings ? Invoke(() => new NetControlState(settings.EnabledPairs, settings.Filter.Station)) : null;

    /// <summary>Puts it back, before any queue is started.</summary>
    /// <exception cref="VmmException">It is of another card.</exception>
    internal void LoadControl(NetControlState? state)
    {
        if (_netSettings is not { } settings || state is null)
            return;
        if (state.Pairs < 1 || state.Pairs > ControlledPairs || state.Mac.IsMulticast)
            throw VmmException.Configuration($"Cannot restore {_settings.Id}: the saved state uses {state.Pairs} pairs of queues, and there are {ControlledPairs}; or it is damaged.");
        _ = Invoke(() =>
        {
            settings.EnabledPairs = state.Pairs;
            settings.Filter = settings.Filter.With(state.Mac);
            ShowMac();
            return true;
        });
    }

    /// <summary>The control queue's file descriptor to wait for; below 0 for none.</summary>
    private int ControlNumber => _controlQueue is { IsBroken: false } queue ? queue.Doorbell.Number : -1;

    private void ServeControl()
    {
        if (_controlQueue is not { IsBroken: false } queue || !(queue.Doorbell.TryConsume() | _controlHasMore))
            return;
        queue.Counters.CountKick();
        queue.SuppressNotifications();
        _controlHasMore = _netControl!.Serve(queue, _activation?.Features ?? 0) || queue.RequestNotifications();
        ShowMac();
    }

    /// <summary>The driver may have set its address, which it reads back.</summary>
    private void ShowMac()
    {
        MacAddress station = _netSettings!.Filter.Station;
        using (_configurationLock.Enter())
        {
            if (MacAddress.From(_configuration) == station)
                return;
            byte[] changed = [.. _configuration];
            station.CopyTo(changed);
            _configuration = changed;
        }
    }

    private void ResetControl()
    {
        if (_netSettings is not { } settings)
            return;
        (_controlQueue, _controlHasMore) = (null, false);
        settings.EnabledPairs = 1;
        settings.Filter = NetFilter.Initial(_initialMac);
        ShowMac();
    }

    /// <summary>Whether a queue is to be enabled: of a card, those of the pairs in use.</summary>
    private bool IsEnabled(Ring ring) => _netSettings is not { } settings || ring.Index < 2 * settings.EnabledPairs;

    bool INetControlled.TrySetPairs(int pairs)
    {
        int before = _netSettings!.EnabledPairs;
        _netSettings.EnabledPairs = pairs;
        // Where there is no back-end, the next one is told when it starts.
        if (pairs == before || _channel is not { } channel)
            return true;
        try
        {
            Enable(channel, Math.Min(before, pairs), Math.Max(before, pairs), pairs > before);
            return true;
        }
        catch (BackEndException e) when (e.IsRefusal)
        {
            _netSettings.EnabledPairs = before;
            SayOnce(e.Message);
            TakeBack(channel, Math.Min(before, pairs), Math.Max(before, pairs), pairs < before);
            return false;
        }
        catch (BackEndException e)
        {
            // The command is done: the next back-end is told. Its answer must not be left out, for which a driver may wait without end.
            Break(e.Message);
            return true;
        }
    }

    // Not offered: only a start of the queues could tell a back-end of it.
    bool INetControlled.TrySetOffloads(ulong offloads) => false;

    private void TakeBack(MainChannel channel, int firstPair, int endPair, bool enabled)
    {
        try
        {
            Enable(channel, firstPair, endPair, enabled);
        }
        catch (BackEndException e)
        {
            // Also a refusal: nobody knows what it serves.
            Break(e.Message);
        }
    }

    private void Enable(MainChannel channel, int firstPair, int endPair, bool enabled)
    {
        for (int i = 2 * firstPair; i < 2 * endPair; i++)
        {
            if (_rings[i].IsServed)
                channel.Send(FrontEndRequest.SetVringEnable, new VringState((uint)i, enabled ? 1u : 0));
        }
        if (!Offer.Has(ProtocolFeatures.ReplyAck))
            channel.Barrier();
        for (int i = 2 * firstPair; enabled && i < 2 * endPair; i++)
        {
            // For what was made available before: the driver will not say so again.
            if (_rings[i].IsServed)
                _rings[i].Setup.Doorbell.Signal();
        }
    }

    private void ReportControl(ICounterSink sink)
    {
        if (_netControl is not { } control)
            return;
        Volatile.Read(ref _controlCounters)?.Report(sink);
        sink.Add("control_commands", control.Commands);
        sink.Add("control_errors", control.Errors);
    }
}
