namespace Vmm.Virtio.Transport;

/// <summary>
/// The driver takes the device's access to memory away (bus mastering), and gives it back: its queues stand still meanwhile. A reset ends
/// that too, as then there is no queue, and who sets one up wants it to be served.
/// </summary>
/// <remarks>
/// Queues that are served here have stopped when that returns. Those that others serve (<see cref="VirtioDevice.HasExternalCalls"/>) stop as
/// soon as these have let go of them, for which no vCPU waits; <see cref="Settle"/> finds it.
/// </remarks>
internal sealed partial class TransportCore
{
    // While somebody serves queues that are to be served again, they are looked at so often. Milliseconds.
    private const int SettlePause = 5;

    private bool _silenced;

    // How many queues were asked to stop because of it and have not.
    private int _fallingSilent;

    // It came while a reset was under way, whose end must not take it back.
    private bool _isSilencedMeanwhile;

    // Looks after queues when no driver touches a register; made when it is needed first.
    private Timer? _settling;

    /// <summary>Takes the access away, or gives it back.</summary>
    internal void SetSilenced(bool silenced)
    {
        if (silenced && !Device.HasExternalCalls)
        {
            // Waits also for a reset that is under way, whose end would else take this back.
            StopAll();
            Settle();
        }
        _silenced = silenced;
        _isSilencedMeanwhile = silenced && IsResetting;
        for (int i = 0; silenced && i < _queues.Length; i++)
            BeginSilence(_queues[i]);
        Settle();
        if (silenced)
            return;
        StartAll();
        if (_fallingSilent > 0)
            SettleLater();
    }

    private void BeginSilence(TransportQueue queue)
    {
        if (!queue.Running || queue.FallsSilent)
            return;
        BeginStop(queue);
        queue.FallsSilent = true;
        _fallingSilent++;
    }

    /// <summary>Completes it for queues that have stopped, and starts them again where the access was given back before.</summary>
    private void SettleSilence()
    {
        if (_fallingSilent == 0)
            return;
        foreach (TransportQueue queue in _queues)
        {
            if (!queue.FallsSilent || queue.Ending != QueueEnding.None || !IsStopped(queue))
                continue;
            Stop(queue);
            StartIfDue(queue);
        }
        TellStarted();
    }

    /// <summary>The driver has done all that it had to: nothing that it does next would find that the queues have stopped.</summary>
    private void SettleLater()
    {
        _settling ??= new Timer(_ =>
        {
            using (Gate.Enter())
            {
                if (_disposed)
                    return;
                Settle();
                if (_fallingSilent > 0)
                    SettleLater();
            }
        });
        _ = _settling.Change(SettlePause, Timeout.Infinite);
    }
}
