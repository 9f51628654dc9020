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

    // What a driver wrote and the back-end has not been told: from, to. Writes that come faster become one.
    private int _writtenFrom = int.MaxValue, _writtenTo;

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

    internal void WriteConfiguration(int offset, ReadOnlySpan<byte> data)
    {
        if (!HasConfiguration)
            return;
        bool first;
        using (_configurationLock.Enter())
        {
            data.CopyTo(_configuration.AsSpan(offset));
            first = _writtenFrom >= _writtenTo;
            _writtenFrom = Math.Min(_writtenFrom, offset);
            _writtenTo = Math.Max(_writtenTo, offset + data.Length);
        }
        if (first)
            Post(PassOnWrites);
    }

    /// <summary>Replaces the copy, where this side has the configuration, and tells the driver.</summary>
    internal void SetConfiguration(ReadOnlySpan<byte> configuration)
    {
        byte[] copy = configuration.ToArray();
        using (_configurationLock.Enter())
            _configuration = copy;
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
            // What is still to be passed on is younger than what was read.
            if (_writtenFrom < _writtenTo)
                _configuration.AsSpan(_writtenFrom, _writtenTo - _writtenFrom).CopyTo(read.AsSpan(_writtenFrom));
            if (_configuration.AsSpan().SequenceEqual(read))
                return;
            _configuration = read;
        }
        Counters.CountConfigurationChange();
        _activation?.Host.SignalConfigurationChange();
    }

    /// <summary>There is no driver any more who wrote them.</summary>
    private void ForgetWrites()
    {
        using (_configurationLock.Enter())
            (_writtenFrom, _writtenTo) = (int.MaxValue, 0);
    }

    private void PassOnWrites()
    {
        // Else it waits for the next one.
        if (_channel is not { } channel)
            return;
        Span<byte> message = stackalloc byte[ConfigHead.Length + ConfigHead.MaximumData];
        int offset, length;
        using (_configurationLock.Enter())
        {
            if (_writtenFrom >= _writtenTo)
                return;
            (offset, length) = (_writtenFrom, _writtenTo - _writtenFrom);
            _configuration.AsSpan(offset, length).CopyTo(message[ConfigHead.Length..]);
            (_writtenFrom, _writtenTo) = (int.MaxValue, 0);
        }
        MemoryMarshal.Write(message, new ConfigHead((uint)offset, (uint)length, 0));
        channel.Send(FrontEndRequest.SetConfig, message[..(ConfigHead.Length + length)]);
    }
}
