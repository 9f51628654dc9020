using Vmm.Core.Interop;
using Vmm.Virtio.Queues;
using Vmm.Virtio.VhostUser.Protocol;

namespace Vmm.Virtio.VhostUser;

/// <summary>
/// How queues are started and stopped (the specification's "Ring states"). All of it on the worker but the first few members, which leave it
/// commands.
/// </summary>
public sealed partial class VhostUserBackEnd
{
    private readonly Ring[] _rings;
    private readonly MemoryTable _memory = new();
    private VhostUserDevice? _device;
    private VirtioActivation? _activation;
    private FileDescriptor? _inflight;
    private InflightDescription _inflightDescription;

    // What this connection has been told of.
    private bool _featuresTold, _inflightTold, _wasStarted;

    // Its state came from another host.
    private bool _announces;

    // The guest's driver must reset the device first.
    private bool _needsReset;

    // A driver has said what it uses, and has not reset the device since.
    private bool _hasDriver;

    /// <summary>A machine's device uses the back-end from now on.</summary>
    internal void Attach(VhostUserDevice device) => Post(() => Volatile.Write(ref _device, device));

    /// <summary>It uses it no more: waits until the back-end has let go of the machine's memory where it can.</summary>
    internal void Detach(VhostUserDevice device) => _ = Invoke(() =>
    {
        if (_device == device)
        {
            Volatile.Write(ref _device, null);
            Guard(ResetBackEnd);
            _activation = null;
            ForgetWrites();
            Withdraw();
        }
        return true;
    });

    private void Withdraw()
    {
        try
        {
            if (_channel is not { } channel)
                return;
            using MainChannel.Operation all = channel.Begin("let go of the guest's memory", _settings.Timeouts.Operation);
            _memory.Withdraw(channel, Offer);
        }
        catch (BackEndException e)
        {
            // Also a refusal: what it still has must not be taken for the memory of the next life.
            Break(e.Message);
        }
    }

    internal void Activate(VirtioActivation activation) => Post(() =>
    {
        _activation = activation;
        _hasDriver = true;
        _featuresTold = false;
    }, CommandKind.Activate);

    /// <summary>Starts queues.</summary>
    internal void Start(IReadOnlyList<VirtQueueSetup> queues) => Post(() =>
    {
        foreach (VirtQueueSetup setup in queues)
        {
            Ring ring = _rings[setup.Index];
            ring.Setup = setup;
            ring.IsWanted = true;
        }
        BringUp();
    });

    /// <summary>Begins to stop one.</summary>
    internal QueueStop BeginStop(int index)
    {
        var stop = new QueueStop();
        // Those that are asked at once have one deadline together.
        long asked = Environment.TickCount64;
        Post(() =>
        {
            Ring ring = _rings[index];
            try
            {
                Stop(ring, asked);
            }
            finally
            {
                // Whatever went wrong: somebody waits.
                stop.Complete(ring.Setup.State);
            }
        });
        lock (_commandLock)
        {
            // Nobody will do it any more.
            if (_disposed)
                stop.Complete(default);
        }
        return stop;
    }

    /// <summary>The driver reset the device. Its queues have stopped.</summary>
    internal void Reset() => Post(ResetBackEnd, CommandKind.Reset);

    private bool IsPacked => _activation?.Has(VirtioFeatures.RingPacked) ?? false;

    private void ForgetConnection()
    {
        _featuresTold = _inflightTold = _logTold = _wasStarted = false;
        _memory.Forget();
        foreach (Ring ring in _rings)
            ring.Told = null;
    }

    /// <summary>Lets the back-end serve all queues that are to be served and are not.</summary>
    private void BringUp()
    {
        if (_activation is not { } activation || _needsReset || !Array.Exists(_rings, ring => ring.IsWanted && !ring.IsServed))
            return;
        if (_channel is not { } channel)
        {
            if (_settings.Reconnect == null)
                NeedsReset("it has no back-end any more, and none is looked for, as reconnect=off says");
            return;
        }
        try
        {
            foreach (Ring ring in _rings)
            {
                if (ring.IsWanted && !ring.IsServed)
                    CheckAreas(ring);
            }
            using MainChannel.Operation all = channel.Begin("start the device", _settings.Timeouts.Operation);
            TellDisplay(channel);
            TellFeatures(channel, activation);
            if (_memory.Tell(channel, Offer, activation.Memory))
                _logTold = false;
            TellLogBase(channel, activation);
            TellInflight(channel);
            // Before it serves: it may map as soon as it does.
            _device?.AcceptMappings();
            _wasStarted = true;
            StartRings(channel);
        }
        catch (BackEndException e) when (e.IsRefusal)
        {
            NeedsReset($"its back-end could not be started: {e.Message}");
            Undo();
            // Where not one was started, there was none whose stop would have said so.
            if (!Array.Exists(_rings, ring => ring.IsServed))
                _device?.RefuseMappings();
        }
    }

    /// <summary>Stops what was started of a start that was refused.</summary>
    private void Undo()
    {
        long now = Environment.TickCount64;
        try
        {
            foreach (Ring ring in _rings)
            {
                if (ring.IsServed && _channel is { } channel)
                    StopServed(channel, ring, now);
            }
        }
        catch (BackEndException e)
        {
            // Also a refusal: a queue that may still be served must not be taken for one that is not.
            Break(e.Message);
        }
    }

    private void StartRings(MainChannel channel)
    {
        var begun = new List<Ring>();
        foreach (Ring ring in _rings)
        {
            if (!ring.IsWanted || ring.IsServed)
                continue;
            begun.Add(ring);
            uint index = (uint)ring.Index;
            VirtQueueSetup setup = ring.Setup;
            channel.Send(FrontEndRequest.SetVringNum, new VringState(index, setup.Size), acknowledged: false);
            channel.Send(FrontEndRequest.SetVringBase, new VringState(index, Ring.ToBase(setup.State, IsPacked)), acknowledged: false);
            TellAddress(channel, ring);
            channel.Send(FrontEndRequest.SetVringErr, (ulong)index, [_ringError.Share()]);
            channel.Send(FrontEndRequest.SetVringCall, (ulong)index, [setup.Call!.Share()]);
            // The last of a queue: some start it here, and not when it is enabled.
            channel.Send(FrontEndRequest.SetVringKick, (ulong)index, [setup.Doorbell.Share()]);
            ring.IsServed = true;
        }
        bool enables = (Offer.Features & VhostUserFeatures.ProtocolFeatures) != 0;
        foreach (Ring ring in begun)
        {
            if (enables && IsEnabled(ring))
                channel.Send(FrontEndRequest.SetVringEnable, new VringState((uint)ring.Index, 1));
        }
        if (!Offer.Has(ProtocolFeatures.ReplyAck))
            channel.Barrier();
        foreach (Ring ring in begun)
        {
            // For what was made available while nobody listened: the driver will not say so again.
            ring.Setup.Doorbell.Signal();
        }
        Announce(channel);
    }

    /// <summary>A network card that came from somewhere else says where it is now (SEND_RARP), where its driver does not do so itself.</summary>
    private void Announce(MainChannel channel)
    {
        bool wanted = _announces && Offer.Has(ProtocolFeatures.Rarp) && !_activation!.Has(Devices.Net.NetFeatures.GuestAnnounce);
        _announces = false;
        if (!wanted)
            return;
        // The address in the order of its bytes, in the first six of eight.
        Span<byte> address = stackalloc byte[sizeof(ulong)];
        address.Clear();
        ReadConfiguration(0, address[..6]);
        channel.Send(FrontEndRequest.SendRarp, System.Runtime.InteropServices.MemoryMarshal.Read<ulong>(address));
    }

    private void TellAddress(MainChannel channel, Ring ring)
    {
        VirtQueueSetup setup = ring.Setup;
        bool logs = _dirtyLog != null;
        var address = new VringAddress(
            (uint)ring.Index,
            logs ? VringAddress.LogUsed : 0,
            MemoryTable.UserAddress(setup.DescriptorArea),
            MemoryTable.UserAddress(setup.DeviceArea),
            MemoryTable.UserAddress(setup.DriverArea),
            logs ? setup.DeviceArea : 0);
        channel.Send(FrontEndRequest.SetVringAddr, address, acknowledged: logs);
    }

    private void TellFeatures(MainChannel channel, VirtioActivation activation, bool acknowledged = false)
    {
        if (_featuresTold)
            return;
        // Without bit 30, rings would begin enabled.
        ulong features = (activation.Features & Offer.Features & ~VhostUserFeatures.NotForGuests) | (Offer.Features & VhostUserFeatures.ProtocolFeatures);
        if (_dirtyLog != null)
            features |= VhostUserFeatures.LogAll;
        channel.Send(FrontEndRequest.SetFeatures, features, acknowledged: acknowledged || _dirtyLog != null);
        _featuresTold = true;
    }

    /// <summary>Gives the back-end the memory in which it notes the requests in flight, which outlives it.</summary>
    private void TellInflight(MainChannel channel)
    {
        if (_inflightTold || !Offer.Has(ProtocolFeatures.InflightSharedMemory))
            return;
        if (_inflight == null)
        {
            // For whatever queues are started later.
            ushort size = _settings.QueueSizes.Max();
            var asked = new InflightDescription(0, 0, (ushort)_rings.Length, size, 0);
            InflightDescription given = channel.AskForDescriptor<InflightDescription, InflightDescription>(FrontEndRequest.GetInflightFd, asked, -1, out FileDescriptor? descriptor);
            if (given.Size == 0)
            {
                descriptor?.Dispose();
                _inflightTold = true;
                return;
            }
            CheckInflight(given, descriptor);
            (_inflight, _inflightDescription) = (descriptor, given with { QueueCount = (ushort)_rings.Length, QueueSize = size });
        }
        channel.Send(FrontEndRequest.SetInflightFd, _inflightDescription, [_inflight!.Number], acknowledged: false);
        _inflightTold = true;
    }

    private void CheckInflight(in InflightDescription given, FileDescriptor? descriptor)
    {
        // Several times what any layout of the specification needs.
        ulong most = (ulong)_rings.Length * (4096 + (64UL * ushort.MaxValue));
        string? problem = descriptor == null ? "without a descriptor"
            : given.Size > most ? $"of {given.Size} bytes, more than {most}"
            : !TryFileSize(descriptor, out ulong length) || given.Offset > length || given.Size > length - given.Offset ? "larger than its file"
            : null;
        if (problem == null)
            return;
        descriptor?.Dispose();
        throw BackEndException.Broken($"it gives memory for requests in flight {problem}");
    }

    private static unsafe bool TryFileSize(FileDescriptor descriptor, out ulong length)
    {
        statx status;
        bool known = LibC.statx(descriptor.Number, "", LibC.AT_EMPTY_PATH, LibC.STATX_SIZE, &status) == 0;
        length = known ? status.stx_size : 0;
        return known;
    }

    /// <summary>A driver says where its rings are, and may lie.</summary>
    private void CheckAreas(Ring ring)
    {
        VirtQueueSetup setup = ring.Setup;
        ulong size = setup.Size;
        // VIRTIO 1.3 §2.7: with room for the event index; §2.8.
        bool inRam = _activation!.Memory.Contains(setup.DescriptorArea, 16 * size)
            && _activation.Memory.Contains(setup.DriverArea, IsPacked ? 4 : 6 + (2 * size))
            && _activation.Memory.Contains(setup.DeviceArea, IsPacked ? 4 : 6 + (8 * size));
        if (!inRam)
            throw BackEndException.Refused($"the driver's queue {ring.Index} is not in memory");
        if (ring.IsPositionPossible(_activation.Memory, IsPacked))
            return;
        if (setup.State != ring.Told)
            throw BackEndException.Refused($"the driver's queue {ring.Index} has more requests made available than it has room for, counted from {setup.State.NextAvailable}, where it stands");
        // The next one begins where any does that takes over.
        ring.Setup = setup with { State = ring.AfterLoss(_activation.Memory, IsPacked) };
        throw BackEndException.Broken($"it said that queue {ring.Index} stands at 0x{setup.State.NextAvailable:x}, which cannot be");
    }

    /// <summary>Stops one; its state says where it stands then.</summary>
    /// <param name="ring">Which.</param>
    /// <param name="asked">When that was asked for, from which its deadline counts.</param>
    private void Stop(Ring ring, long asked)
    {
        ring.IsWanted = false;
        try
        {
            if (ring.IsServed && _channel is { } channel)
                StopServed(channel, ring, asked);
        }
        catch (BackEndException e)
        {
            // Also a refusal: a queue that may still be served must not be taken for one that is not.
            Break(e.Message);
        }
    }

    private void StopServed(MainChannel channel, Ring ring, long asked)
    {
        using MainChannel.Operation all = channel.Begin("stop the device's queues", _settings.Timeouts.Stop, asked);
        if ((Offer.Features & VhostUserFeatures.ProtocolFeatures) != 0)
            channel.Send(FrontEndRequest.SetVringEnable, new VringState((uint)ring.Index, 0));
        VringState answer = channel.Ask<VringState, VringState>(FrontEndRequest.GetVringBase, new VringState((uint)ring.Index, 0), _settings.Timeouts.Stop);
        if (answer.Index != (uint)ring.Index)
            throw BackEndException.Broken($"it was asked to stop queue {ring.Index}, and answered for queue {answer.Index}");
        if (ring.FromBase(answer.Number, IsPacked) is not { } state)
            throw BackEndException.Broken($"it says that queue {ring.Index} stands at 0x{answer.Number:x}, which cannot be");
        ring.Setup = ring.Setup with { State = state };
        ring.Told = state;
        ring.IsServed = false;
        if (!Array.Exists(_rings, other => other.IsServed))
            _device?.RefuseMappings();
    }

    private void ResetBackEnd()
    {
        _needsReset = _hasDriver = false;
        ResetControl();
        _featuresTold = _inflightTold = _logTold = false;
        // It was of the requests of another driver.
        _inflight?.Dispose();
        _inflight = null;
        foreach (Ring ring in _rings)
            (ring.IsWanted, ring.Setup, ring.Told) = (false, default, null);
        if (_wasStarted && _channel is { } channel && Offer.Has(ProtocolFeatures.ResetDevice))
            channel.Send(FrontEndRequest.ResetDevice, default);
        _wasStarted = false;
    }

    private void NeedsReset(string reason)
    {
        _needsReset = true;
        _activation?.Host.NeedsReset(reason);
    }
}
