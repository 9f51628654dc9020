using System.Collections.Concurrent;

namespace Vmm.Virtio.Tests.Driver;

/// <summary>A transport that only writes down what a device asks of it, and lets a test wait for it.</summary>
public sealed class RecordingHost : IVirtioHost
{
    private readonly Lock _lock = new();
    private readonly int[] _interrupts = new int[256];
    private readonly ConcurrentQueue<string> _needsReset = new();
    private int _configurationChanges;
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Why DEVICE_NEEDS_RESET was set, each time.</summary>
    public IReadOnlyList<string> ResetReasons => [.. _needsReset];

    /// <summary>Whether DEVICE_NEEDS_RESET was set.</summary>
    public bool IsResetNeeded => !_needsReset.IsEmpty;

    /// <summary>The driver has reset the device.</summary>
    public void ForgetResets() => _needsReset.Clear();

    /// <summary>Configuration interrupts so far.</summary>
    public int ConfigurationChanges => Volatile.Read(ref _configurationChanges);

    /// <summary>Interrupts of a queue so far.</summary>
    public int Interrupts(int queue) => Volatile.Read(ref _interrupts[queue]);

    /// <summary>
    /// Waits, without polling, until a condition holds; it is looked at again after each interrupt, configuration change and NeedsReset.
    /// </summary>
    /// <exception cref="TimeoutException">It does not hold after the time, by default 30 seconds.</exception>
    public void WaitUntil(Func<bool> condition, string what = "the device's answer", int seconds = 30)
    {
        var clock = System.Diagnostics.Stopwatch.StartNew();
        while (true)
        {
            Task changed;
            lock (_lock)
                changed = _changed.Task;
            if (condition())
                return;
            TimeSpan left = TimeSpan.FromSeconds(seconds) - clock.Elapsed;
            if (left <= TimeSpan.Zero || !changed.Wait(left))
                throw new TimeoutException($"Waited {seconds} s for {what}. NeedsReset: {string.Join("; ", ResetReasons)}");
        }
    }

    /// <inheritdoc/>
    public void SignalQueue(int queue)
    {
        Interlocked.Increment(ref _interrupts[queue]);
        Changed();
    }

    /// <inheritdoc/>
    public void SignalConfigurationChange()
    {
        Interlocked.Increment(ref _configurationChanges);
        Changed();
    }

    /// <inheritdoc/>
    public void NeedsReset(string reason)
    {
        _needsReset.Enqueue(reason);
        Changed();
    }

    private void Changed()
    {
        TaskCompletionSource before;
        lock (_lock)
        {
            before = _changed;
            _changed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        }
        before.SetResult();
    }
}
