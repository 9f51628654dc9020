using System.Runtime.InteropServices;
using Vmm.Core.Locking;
using Vmm.Virtio.VhostUser.Protocol;

namespace Vmm.Virtio.VhostUser;

/// <summary>
/// The configuration space: guests read a copy, which the worker brings up to date when the back-end says that it changed, and to which
/// they write; the worker passes that on.
/// </summary>
public sealed partial class VhostUserBackEnd
{
    private readonly OrderedLock _configurationLock = new(LockRank.Configuration);
    private byte[] _configuration = [];

    // What the back-end has not been told, and whether the worker is about to.
    private readonly ConfigurationWrites _writes = new();
    private bool _passesOn;

    // Changes of the copy that a driver did not make.
    private uint _generation;

    private int _configurationChanged;
    private long _nextConfigurationRead;

    /// <summary>Bytes of it.</summary>
    internal int ConfigurationLength => _configuration.Length;

    /// <summary>When the next read of it is due; long.MaxValue where none is.</summary>
    private long ConfigurationDue => Volatile.Read(ref _configurationChanged) != 0 ? _nextConfigurationRead : long.MaxValue;

    private bool HasConfiguration => Offer.Has(ProtocolFeatures.Config) && _settings.Configuration == null && _settings.ConfigurationLength > 0;

    internal void ReadConfiguration(int offset, Span<byte> data)
    {
        using (_configurationLock.Enter())
            _configuration.AsSpan(offset, data.Length).CopyTo(data);
    }

    /// <summary>
    /// Differs after each change of the copy that a driver did not make. It counts with the change, under one lock: a driver that reads it
    /// before and after several fields knows whether these belong together.
    /// </summary>
    internal uint ConfigurationGeneration
    {
        get
        {
            using (_configurationLock.Enter())
                return _generation;
        }
    }

    internal void WriteConfiguration(int offset, ReadOnlySpan<byte> data)
    {
        if (!HasConfiguration)
            return;
        bool first;
        using (_configurationLock.Enter())
        {
            data.CopyTo(_configuration.AsSpan(offset));
            _writes.Add(offset, data);
            first = !_passesOn;
            _passesOn = true;
        }
        if (first)
            Post(PassOnWrites);
    }

    /// <summary>Replaces the copy, where this side has the configuration, and tells the driver.</summary>
    internal void SetConfiguration(ReadOnlySpan<byte> configuration)
    {
        byte[] copy = configuration.ToArray();
        using (_configurationLock.Enter())
        {
            _configuration = copy;
            _generation++;
        }
        Post(() => _activation?.Host.SignalConfigurationChange());
    }

    void IBackEndRequests.ConfigurationChanged() => MarkConfigurationChanged();

    private void MarkConfigurationChanged()
    {
        if (Interlocked.Exchange(ref _configurationChanged, 1) == 0)
            _wake.Signal();
    }

    private void ReadChangedConfiguration()
    {
        long now = Environment.TickCount64;
        if (ConfigurationDue > now)
            return;
        // Before the reading: what changes meanwhile is read again. Not at once: a back-end could keep us at nothing else.
        Interlocked.Exchange(ref _configurationChanged, 0);
        _nextConfigurationRead = now + _settings.Timeouts.ConfigurationReads;
        if (!HasConfiguration)
            return;
        byte[] read = Handshake.ReadConfiguration(_channel!, _settings);
        using (_configurationLock.Enter())
        {
            _writes.Keep(_configuration, read);
            if (_configuration.AsSpan().SequenceEqual(read))
                return;
            _configuration = read;
            _generation++;
        }
        Counters.CountConfigurationChange();
        _activation?.Host.SignalConfigurationChange();
    }

    /// <summary>There is no driver any more who wrote them.</summary>
    private void ForgetWrites()
    {
        using (_configurationLock.Enter())
            _writes.Clear();
    }

    private void PassOnWrites()
    {
        using (_configurationLock.Enter())
            _passesOn = false;
        // Else they wait for the next one.
        if (_channel is not { } channel)
            return;
        using MainChannel.Operation all = channel.Begin("take what the driver wrote", _settings.Timeouts.Operation);
        // Not for as long as a driver goes on with it: others wait for the worker too.
        for (int i = 0; i <= ConfigurationWrites.Most; i++)
        {
            if (!TryTakeWrite(out int offset, out byte[] data))
                return;
            PassOn(channel, offset, data);
        }
        Post(PassOnWrites);
    }

    private bool TryTakeWrite(out int offset, out byte[] data)
    {
        using (_configurationLock.Enter())
            return _writes.TryTake(_configuration, out offset, out data);
    }

    private void PassOn(MainChannel channel, int offset, byte[] data)
    {
        Span<byte> message = stackalloc byte[ConfigHead.Length + data.Length];
        MemoryMarshal.Write(message, new ConfigHead((uint)offset, (uint)data.Length, 0));
        data.CopyTo(message[ConfigHead.Length..]);
        try
        {
            channel.Send(FrontEndRequest.SetConfig, message);
        }
        catch (BackEndException e) when (e.IsRefusal)
        {
            // The others are to be told all the same.
            SayOnce(e.Message);
        }
    }
}
