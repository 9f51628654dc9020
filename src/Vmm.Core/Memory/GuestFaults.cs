using Vmm.Core.Locking;

namespace Vmm.Core.Memory;

/// <summary>All of a machine's memory that can vanish. Any thread.</summary>
internal sealed class GuestFaults : IGuestFaultHandler
{
    private readonly OrderedLock _writers = new(LockRank.GuestFaults);
    private IGuestFaultHandler[] _handlers = [];

    /// <summary>Whether there is none.</summary>
    internal bool IsEmpty => Volatile.Read(ref _handlers).Length == 0;

    /// <summary>Adds some; for the machine's life.</summary>
    internal void Add(IGuestFaultHandler handler)
    {
        using (_writers.Enter())
            Volatile.Write(ref _handlers, [.. _handlers, handler]);
    }

    /// <inheritdoc/>
    public GuestFaultAnswer Resolve()
    {
        // All of them: what is gone at one may be gone at others, and each would be another failed KVM_RUN.
        var answer = GuestFaultAnswer.NotHere;
        foreach (IGuestFaultHandler handler in Volatile.Read(ref _handlers))
        {
            GuestFaultAnswer one = handler.Resolve();
            if (one > answer)
                answer = one;
        }
        return answer;
    }

    /// <inheritdoc/>
    public bool GiveUp()
    {
        // One after the other, as long as it goes on: those that are not to blame keep theirs, if they come later.
        foreach (IGuestFaultHandler handler in Volatile.Read(ref _handlers))
        {
            if (handler.GiveUp())
                return true;
        }
        return false;
    }
}
