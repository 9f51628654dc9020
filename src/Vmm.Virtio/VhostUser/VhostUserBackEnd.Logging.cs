using Vmm.Core;
using Vmm.Virtio.VhostUser.Protocol;

namespace Vmm.Virtio.VhostUser;

/// <summary>Dirty logging, for migration.</summary>
public sealed partial class VhostUserBackEnd
{
    private DirtyLog? _dirtyLog;

    // Of this connection, this log and this memory table.
    private bool _logTold;

    /// <summary>Whether it can note what it writes; a machine with one that cannot does not migrate while it runs.</summary>
    public bool CanLog => Offer.Has(ProtocolFeatures.LogSharedMemory) && (Offer.Features & VhostUserFeatures.LogAll) != 0;

    /// <summary>
    /// Lets the back-end note what it writes. Goes on through reconnections until <see cref="StopLogging"/>.
    /// </summary>
    /// <param name="log">Where; stays the caller's, until logging has been stopped.</param>
    /// <exception cref="VmmException">It cannot, or does not.</exception>
    public void StartLogging(DirtyLog log)
    {
        ArgumentNullException.ThrowIfNull(log);
        _ = Invoke(() =>
        {
            if (!CanLog)
                throw VmmException.Configuration($"The back-end of {_settings.Id} cannot log what it writes: it lacks LOG_SHMFD or VHOST_F_LOG_ALL.");
            DirtyLog? before = _dirtyLog;
            _dirtyLog = log;
            _logTold = false;
            try
            {
                TellLogging();
            }
            catch (BackEndException e)
            {
                // It may log half of it: nobody knows. The next one does not.
                _dirtyLog = before;
                Break(e.Message);
                throw VmmException.Host($"The back-end of {_settings.Id} does not log what it writes: {e.Message}.");
            }
            return true;
        });
    }

    /// <summary>
    /// Ends it. Some back-ends take that for a migration that was given up. One that does not hear of it, as it ended by itself once it had
    /// given its state, or that does not do it, is let go of; the next one does not log.
    /// </summary>
    public void StopLogging() => _ = Invoke(() =>
    {
        _dirtyLog = null;
        _logTold = false;
        try
        {
            TellLogging();
        }
        catch (BackEndException e)
        {
            Break(e.Message);
        }
        return true;
    });

    /// <summary>Tells a back-end that serves queues whether to log; one that does not serve yet is told when it does.</summary>
    private void TellLogging()
    {
        if (_channel is not { } channel || _activation is not { } activation || !_featuresTold)
            return;
        using MainChannel.Operation all = channel.Begin("switch its log", _settings.Timeouts.Operation);
        _featuresTold = false;
        TellLogBase(channel, activation);
        TellFeatures(channel, activation, acknowledged: true);
        foreach (Ring ring in _rings)
        {
            if (ring.IsServed)
                TellAddress(channel, ring);
        }
    }

    /// <summary>
    /// Says where the log is. After the memory table, and again after a change of it: back-ends may find the bits of each region when they are
    /// told of the log.
    /// </summary>
    private void TellLogBase(MainChannel channel, VirtioActivation activation)
    {
        if (_dirtyLog is not { } log || _logTold)
            return;
        if (!log.Covers(activation.Memory))
            throw BackEndException.Refused("the log that it was to be given is of a smaller memory");
        channel.SetLogBase(new LogDescription(log.Length, 0), log.Number);
        _logTold = true;
    }
}
