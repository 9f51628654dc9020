using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Core.Sockets;
using Vmm.Virtio.VhostUser.Protocol;

namespace Vmm.Virtio.VhostUser;

/// <summary>How a back-end is found, lost and found again.</summary>
public sealed partial class VhostUserBackEnd
{
    // Milliseconds; and how many connections in a row may be so short before the next one has to wait.
    private const int ShortLife = 5_000;
    private const int FreeShortLives = 3;

    private long _takenAt;
    private int _shortLives;

    // What the first one offered and the one of now does not.
    private ulong _missing;

    /// <summary>What a driver may be offered: what the first back-end could, without what the one of now cannot. Any thread.</summary>
    internal ulong Features => Offer.Features & ~Volatile.Read(ref _missing);

    /// <summary>Whether a lost back-end is to be replaced.</summary>
    private bool IsLookedFor => _settings.Reconnect != null && !_isOver;

    /// <summary>The first one. Not on the worker, which has not begun.</summary>
    private void ConnectFirst(int patience, CancellationToken cancel)
    {
        long deadline = patience < 0 ? long.MaxValue : Environment.TickCount64 + patience;
        while (true)
        {
            cancel.ThrowIfCancellationRequested();
            if (FindSomebody(out int error) is { } stream)
            {
                // Ends a wait for its first answer.
                using CancellationTokenRegistration registration = cancel.Register(stream.Shutdown);
                TakeFirst(stream, cancel);
                return;
            }
            if (Environment.TickCount64 >= deadline || !MayPass(error))
                throw NobodyCame(error);
            _ = cancel.WaitHandle.WaitOne(10);
        }
    }

    private void TakeFirst(UnixStream stream, CancellationToken cancel)
    {
        try
        {
            _offer = Take(stream, offer => RefuseFirst(offer));
        }
        catch (BackEndException e)
        {
            cancel.ThrowIfCancellationRequested();
            throw VmmException.Host($"Cannot use the vhost-user back-end of {_settings.Id} at {_settings.Socket}: {e.Message}.");
        }
        _configuration = _settings.Configuration ?? Offer.Configuration;
    }

    private VmmException NobodyCame(int error) => _settings.IsBeingStarted
        ? VmmException.Host($"The back-end of {_settings.Id} has been started, and does not listen at {_settings.Socket}: {LibC.strerror(error)}. Correct exec=.")
        : _settings.Server && !MayPass(error) ? VmmException.Host($"Cannot take a vhost-user back-end of {_settings.Id} that connects to {_settings.Socket}: {LibC.strerror(error)}.")
        : _settings.Server ? VmmException.Host($"No vhost-user back-end of {_settings.Id} has connected to {_settings.Socket}. Start it with that socket, as a client.")
        : VmmException.Host($"Cannot connect to the vhost-user back-end of {_settings.Id} at {_settings.Socket}: {LibC.strerror(error)}. Start the back-end first, or correct socket=.");

    /// <summary>Why a back-end cannot be this device at all; null where it can.</summary>
    private string? RefuseFirst(BackEndOffer offer)
    {
        if ((offer.Features & VirtioFeatures.Version1) == 0)
            return "it offers a legacy device only (no VIRTIO_F_VERSION_1)";
        if (offer.Queues < _settings.QueueSizes.Count)
            return $"it has {offer.Queues} queues, and {_settings.QueueSizes.Count} are asked for; ask for fewer";
        if (ControlledPairs > 1 && !(offer.Has(ProtocolFeatures.MultiQueue) && (offer.Features & Devices.Net.NetFeatures.MultiQueue) != 0))
            return $"it has one pair of queues (it lacks VIRTIO_NET_F_MQ or the protocol feature MQ), and {ControlledPairs} are asked for; leave num_queues out";
        if (_settings.ConfigurationLength > 0 && offer.Configuration.Length == 0)
            return "it has no configuration space (it lacks the protocol feature CONFIG), and the device needs one";
        return null;
    }

    /// <summary>Begins a connection and makes it the one that is used.</summary>
    /// <param name="stream">It; taken over.</param>
    /// <param name="refuse">Says why such a back-end cannot be taken.</param>
    private BackEndOffer Take(UnixStream stream, Func<BackEndOffer, string?> refuse)
    {
        var channel = new MainChannel(stream, _settings.Timeouts);
        BackEndChannel? requests = null;
        try
        {
            // What the one before said at its end.
            Interlocked.Exchange(ref _channelEnded, null);
            _talking = channel;
            if (_isOver)
                channel.Shutdown();
            BackEndOffer offer = Handshake.Negotiate(channel, _settings, _offer?.ProtocolFeatures ?? ~0UL, this, out requests);
            if (refuse(offer) is { } clause)
                throw BackEndException.Refused(clause);
            (_channel, _requests) = (channel, requests);
            (_takenAt, _ringErrorTold) = (Environment.TickCount64, false);
            Counters.CountConnect();
            return offer;
        }
        catch
        {
            requests?.Dispose();
            channel.Dispose();
            throw;
        }
    }

    /// <summary>Whether it is nothing but nobody there yet.</summary>
    private static bool MayPass(int error) => error is LibC.ENOENT or LibC.ECONNREFUSED or LibC.EAGAIN or LibC.EINTR;

    private UnixStream? FindSomebody(out int error)
    {
        error = LibC.EAGAIN;
        if (_listener != null)
            return _listener.TryAccept(out error);
        if (_connect == null)
            return UnixStream.TryConnect(_settings.Socket, out error);
        return _connect();
    }

    /// <summary>Tries once to find another back-end.</summary>
    private void Reconnect()
    {
        _retryAt = Environment.TickCount64 + (_listener != null ? 0 : _settings.Reconnect ?? 0);
        if (FindSomebody(out int error) is not { } stream)
        {
            if (MayPass(error))
                return;
            // Whoever connected is still waiting: without a pause he would be looked at all the time.
            _retryAt = Environment.TickCount64 + RefusedRetry;
            SayOnce($"no other back-end can be taken: {LibC.strerror(error)}");
            return;
        }
        try
        {
            BackEndOffer now = Take(stream, offer => RefuseFirst(offer) ?? Offer.Refuse(offer, _hasDriver ? _activation!.Features : Features & ~VhostUserFeatures.NotForGuests & ~_settings.RefusedFeatures));
            Volatile.Write(ref _missing, Offer.Features & ~now.Features);
        }
        catch (VmmException e)
        {
            // The host's trouble, which may pass.
            _retryAt = Environment.TickCount64 + RefusedRetry;
            SayOnce($"another back-end cannot be taken: {e.Message}");
            return;
        }
        catch (BackEndException e)
        {
            Counters.CountRefusedBackEnd();
            _retryAt = Environment.TickCount64 + RefusedRetry;
            // Once: it may come again and again.
            if (_lastFailure != e.Message)
                Say($"a back-end came that cannot be used: {e.Message}");
            _lastFailure = e.Message;
            return;
        }
        _lastFailure = null;
        Say("a back-end is there again");
        Guard(PassOnWrites);
        MarkConfigurationChanged();
        BringUp();
    }

    /// <summary>Gives the back-end up: what it had is taken away, and its queues stand still where they are.</summary>
    private void Break(string clause)
    {
        if (_channel == null)
        {
            Say(clause);
            return;
        }
        Close();
        Counters.CountLoss();
        bool packed = IsPacked;
        foreach (Ring ring in _rings)
        {
            if (!ring.IsServed)
                continue;
            ring.IsServed = false;
            if (_activation != null)
                ring.Setup = ring.Setup with { State = ring.AfterLoss(_activation.Memory, packed) };
        }
        ForgetConnection();
        bool hadMappings = _device?.DropMappings() ?? false;
        Say($"lost its back-end: {clause}; {(IsLookedFor ? "the device stands still until another one is there" : _isOver ? "the machine ends" : "the device is broken, as reconnect=off says")}");
        if (hadMappings)
            NeedsReset("its back-end went away, and with it what it had mapped into shared memory");
        else if (_settings.Reconnect == null && _activation != null)
            NeedsReset("its back-end went away");
        // At once, for one who is there already; but not all the time, if each that comes goes at once.
        long now = Environment.TickCount64;
        _shortLives = now - _takenAt < ShortLife ? _shortLives + 1 : 0;
        _retryAt = _shortLives <= FreeShortLives ? 0 : now + Math.Min(RefusedRetry, 10L << Math.Min(_shortLives - FreeShortLives, 10));
    }

    private void Close()
    {
        _channel?.Dispose();
        _requests?.Dispose();
        _display?.Disconnect();
        _channel = null;
        _requests = null;
    }
}
