using Vmm.Core;
using Vmm.Virtio.VhostUser.Protocol;

namespace Vmm.Virtio.VhostUser;

/// <summary>Dirty logging, for migration.</summary>
public sealed partial class VhostUserBackEnd
{
    private DirtyLog? _dirtyLog;

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
        _featuresTold = false;
        TellFeatures(channel, activation, acknowledged: true);
        foreach (Ring ring in _rings)
        {
            if (ring.IsServed)
                TellAddress(channel, ring);
        }
    }

    private void TellLogBase(MainChannel channel)
    {
        if (_dirtyLog is { } log)
            channel.SetLogBase(new LogDescription(log.Length, 0), log.Number);
    }
}
