namespace Vmm.Virtio.Tests.Hostile;

/// <summary>A transport that counts, and keeps what a device calls its own defect.</summary>
public sealed class HostileHost : IVirtioHost
{
    private volatile string? _defect;
    private volatile bool _needsReset;
    private long _broken, _interrupts;

    /// <summary>What a device says that it did wrong itself; none may.</summary>
    public string? Defect => _defect;

    /// <summary>Whether DEVICE_NEEDS_RESET is set.</summary>
    public bool IsResetNeeded => _needsReset;

    /// <summary>How often it was set.</summary>
    public long Broken => Volatile.Read(ref _broken);

    /// <summary>Interrupts of all queues.</summary>
    public long Interrupts => Volatile.Read(ref _interrupts);

    /// <summary>A reset was done.</summary>
    public void Clear() => _needsReset = false;

    /// <inheritdoc/>
    public void SignalQueue(int queue) => Interlocked.Increment(ref _interrupts);

    /// <inheritdoc/>
    public void SignalConfigurationChange()
    {
    }

    /// <inheritdoc/>
    public void NeedsReset(string reason)
    {
        _needsReset = true;
        Interlocked.Increment(ref _broken);
        if (reason.Contains("defect", StringComparison.Ordinal))
            _defect ??= reason;
    }
}
