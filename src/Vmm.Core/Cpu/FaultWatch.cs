using Vmm.Core.Kvm;
using Vmm.Core.Memory;

namespace Vmm.Core.Cpu;

/// <summary>
/// Finds vCPUs that take the same fault again and again without KVM_RUN ever failing, and has those resolve it who know of memory that can vanish.
/// </summary>
/// <remarks>
/// Where an access could wait for a page, KVM has the page brought in by another thread and lets the guest go on meanwhile (asynchronous page
/// faults). It takes a page that a truncated file has lost for one that is still to be read, so the guest waits, tries again and waits, for ever; only
/// accesses that cannot wait fail with EFAULT (<see cref="Vcpu"/> resolves those at once). KVM's statistics tell: faults are taken that nothing settles.
/// </remarks>
internal sealed class FaultWatch : IDisposable
{
    /// <summary>Between two looks: a guest that stumbles waits for up to two of them.</summary>
    internal static readonly TimeSpan Interval = TimeSpan.FromMilliseconds(200);

    /// <summary>As many unsettled faults of a vCPU between two looks are a reason to look at the memory. Waiting for a real disk is a few; a loop is hundreds.</summary>
    internal const int Threshold = 16;

    private readonly IGuestFaultHandler _handler;
    private readonly IReadOnlyList<Func<long?>> _unsettled;
    private readonly long?[] _before;
    private readonly IDisposable[] _owned;
    private readonly Lock _looking = new();
    private readonly ITimer _timer;
    private bool _disposed;

    /// <summary>Watches until it is disposed of.</summary>
    /// <param name="handler">Who resolves; on a thread of its own.</param>
    /// <param name="unsettled">Of each vCPU, how many unsettled faults it has had; null for unknown.</param>
    /// <param name="clock">Tells when to look.</param>
    /// <param name="owned">Disposed of with it.</param>
    internal FaultWatch(IGuestFaultHandler handler, IReadOnlyList<Func<long?>> unsettled, TimeProvider clock, IDisposable[] owned)
    {
        _handler = handler;
        _unsettled = unsettled;
        _before = new long?[unsettled.Count];
        _owned = owned;
        _timer = clock.CreateTimer(static me => ((FaultWatch)me!).Look(), this, Interval, Interval);
    }

    /// <summary>Watches vCPUs that do not run yet; null where this host's KVM has no such statistics.</summary>
    internal static FaultWatch? Start(IGuestFaultHandler handler, IReadOnlyList<Vcpu> vcpus, TimeProvider clock)
    {
        var statistics = new List<KvmFaultStatistics>(vcpus.Count);
        var unsettled = new List<Func<long?>>(vcpus.Count);
        foreach (Vcpu vcpu in vcpus)
        {
            if (KvmFaultStatistics.TryOpen(vcpu.Kvm) is not { } one)
                break;
            statistics.Add(one);
            unsettled.Add(() => one.TryReadUnsettled(out long count) ? count : null);
        }
        return statistics.Count == 0 ? null : new FaultWatch(handler, unsettled, clock, [.. statistics]);
    }

    /// <summary>Stops watching. A look that is taken just now may still go on: a file may keep it waiting for as long as it likes.</summary>
    public void Dispose()
    {
        _timer.Dispose();
        // In this order: a look that goes on sees it when it ends.
        Volatile.Write(ref _disposed, true);
        Interlocked.MemoryBarrier();
        if (!_looking.TryEnter())
            return;
        try
        {
            Close();
        }
        finally
        {
            _looking.Exit();
        }
    }

    private void Look()
    {
        // A file that keeps the look before waiting keeps it alone.
        if (!_looking.TryEnter())
            return;
        try
        {
            bool stuck = false;
            for (int i = 0; i < _before.Length && !Volatile.Read(ref _disposed); i++)
            {
                long? now = _unsettled[i]();
                stuck |= now - _before[i] >= Threshold;
                _before[i] = now;
            }
            if (stuck)
                _handler.Resolve();
        }
        finally
        {
            _looking.Exit();
        }
        Interlocked.MemoryBarrier();
        if (Volatile.Read(ref _disposed))
            Dispose();
    }

    private void Close()
    {
        foreach (IDisposable one in _owned)
            one.Dispose();
    }
}
