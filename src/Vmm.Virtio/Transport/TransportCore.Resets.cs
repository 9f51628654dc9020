using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Transport;

/// <summary>
/// Resets and stops. Those that a driver asks for begin with its write and end when the device has let go of its queues, which
/// <see cref="Settle"/> finds: a transport calls it before each access to a register. Those of others wait.
/// </summary>
internal sealed partial class TransportCore
{
    // How many queues are being disabled or reset.
    private int _ending;

    /// <summary>
    /// A driver's reset of the device is under way: the status does not change before its end, and its other registers are not written.
    /// </summary>
    internal bool IsResetting { get; private set; }

    /// <summary>Completes the resets that are under way and need not wait any more.</summary>
    internal void Settle()
    {
        if (IsResetting)
        {
            foreach (TransportQueue queue in _queues)
            {
                if (!IsStopped(queue))
                    return;
            }
            Reset();
            return;
        }
        for (int i = 0; _ending > 0 && i < _queues.Length; i++)
        {
            if (_queues[i].Ending != QueueEnding.None && IsStopped(_queues[i]))
                End(_queues[i]);
        }
        SettleSilence();
    }

    /// <summary>Stops everything and forgets what a driver said (§2.4), also what it was waiting for. Complete when it returns.</summary>
    internal void Reset()
    {
        StopAll();
        try
        {
            Device.Reset();
        }
        catch (Exception e)
        {
            Log($"its reset failed, which is a defect of this program: {e.GetType().Name}: {e.Message}");
        }
        foreach (TransportQueue queue in _queues)
            queue.Clear();
        IsResetting = false;
        _ending = 0;
        _driverFeatures = 0;
        _hasUnknownFeatures = false;
        _silenced = _isSilencedMeanwhile;
        _isSilencedMeanwhile = false;
        DeviceFeaturesSelect = DriverFeaturesSelect = QueueSelect = 0;
        // No queue runs any more, so nobody says NeedsReset between these two.
        Interlocked.Exchange(ref _status, 0);
        _interrupts.ResetInterrupts();
    }

    /// <summary>Stops the selected queue and keeps its registers (§4.2.2, QueueReady), now or at a <see cref="Settle"/>.</summary>
    internal void DisableQueue() => BeginEnd(QueueEnding.Disable);

    /// <summary>Resets the selected queue (§2.6.1) if VIRTIO_F_RING_RESET was accepted, now or at a <see cref="Settle"/>.</summary>
    internal void ResetQueue()
    {
        if ((Status & DeviceStatus.FeaturesOk) != 0 && (_driverFeatures & VirtioFeatures.RingReset) != 0)
            BeginEnd(QueueEnding.Reset);
    }

    private void BeginReset()
    {
        IsResetting = true;
        foreach (TransportQueue queue in _queues)
            BeginStop(queue);
        Settle();
    }

    private void BeginEnd(QueueEnding ending)
    {
        if (SelectedQueue is not { Ending: QueueEnding.None } queue || (ending == QueueEnding.Disable && !queue.Enabled))
            return;
        queue.Ending = ending;
        _ending++;
        BeginStop(queue);
        if (IsStopped(queue))
            End(queue);
    }

    private void End(TransportQueue queue)
    {
        Stop(queue);
        _ending--;
        if (queue.Ending == QueueEnding.Reset)
        {
            queue.Clear();
            _interrupts.ResetQueueInterrupt(queue.Index);
            return;
        }
        queue.Ending = QueueEnding.None;
        queue.Enabled = false;
        queue.Ring = VirtQueueState.Initial;
    }

    private void BeginStop(TransportQueue queue)
    {
        if (!queue.Running)
            return;
        try
        {
            Device.BeginStopQueue(queue.Index);
        }
        catch (Exception e)
        {
            Broken($"begin to stop queue {queue.Index}", e);
        }
    }

    private bool IsStopped(TransportQueue queue)
    {
        if (!queue.Running)
            return true;
        try
        {
            return Device.IsQueueStopped(queue.Index);
        }
        catch (Exception e)
        {
            // Its stop is tried, and fails or not.
            Broken($"ask whether queue {queue.Index} has stopped", e);
            return true;
        }
    }

    /// <summary>All at once, then one after the other, so that the longest counts and not the sum.</summary>
    private void StopAll()
    {
        foreach (TransportQueue queue in _queues)
            BeginStop(queue);
        foreach (TransportQueue queue in _queues)
            Stop(queue);
    }

    private void Stop(TransportQueue queue)
    {
        if (!queue.Running)
            return;
        queue.Running = false;
        if (queue.FallsSilent)
            _fallingSilent--;
        queue.FallsSilent = false;
        try
        {
            queue.Ring = Device.StopQueue(queue.Index);
        }
        catch (Exception e)
        {
            Broken($"stop queue {queue.Index}", e);
        }
    }
}
