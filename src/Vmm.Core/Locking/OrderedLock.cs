using System.Runtime.CompilerServices;

namespace Vmm.Core.Locking;

/// <summary>A lock with a place in the order of <see cref="LockRank"/>, which <see cref="LockWitness"/> watches in tests.</summary>
/// <param name="rank">Its place.</param>
internal sealed class OrderedLock(LockRank rank)
{
    private readonly Lock _lock = new();

    /// <summary>Its place.</summary>
    internal LockRank Rank => rank;

    /// <summary>Takes it, until what this gives is disposed of.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal Scope Enter()
    {
        if (LockWitness.IsOn)
            LockWitness.Taking(this);
        _lock.Enter();
        return new Scope(this);
    }

    private void Exit()
    {
        if (LockWitness.IsOn)
            LockWitness.Released(this);
        _lock.Exit();
    }

    /// <summary>The time for which it is held.</summary>
    internal readonly ref struct Scope(OrderedLock held)
    {
        /// <summary>Lets go of it.</summary>
        public void Dispose() => held.Exit();
    }
}
