using System.Collections.Concurrent;
using System.Diagnostics.CodeAnalysis;

namespace Vmm.Core.Locking;

/// <summary>
/// Watches in tests what locks each thread holds, and finds the one that is taken out of order, held while somebody else is waited for, or
/// never released. The shipped program has none of it: the switch is a constant there.
/// </summary>
internal static class LockWitness
{
    private static readonly ConcurrentQueue<string> s_violations = new();

    [ThreadStatic]
    private static List<OrderedLock>? t_held;

    /// <summary>Whether it watches: Vmm.LockWitness in a program's runtime configuration.</summary>
    [FeatureSwitchDefinition("Vmm.LockWitness")]
    internal static bool IsOn { get; } = AppContext.TryGetSwitch("Vmm.LockWitness", out bool on) && on;

    /// <summary>What was found so far, by any thread.</summary>
    internal static IReadOnlyCollection<string> Violations => s_violations;

    /// <summary>
    /// The calling thread is about to wait for somebody else, or has come to the end of a handler: it may hold no lock.
    /// </summary>
    /// <param name="what">What it does, for the error: "waits for a back-end".</param>
    /// <exception cref="SynchronizationLockException">It does.</exception>
    internal static void RequireNone(string what)
    {
        if (IsOn && t_held is { Count: > 0 } held)
            Tell($"a thread {what} while it holds the lock of {string.Join(" and ", held.Select(each => each.Rank))}");
    }

    internal static void Taking(OrderedLock wanted)
    {
        List<OrderedLock> held = t_held ??= [];
        foreach (OrderedLock other in held)
        {
            if (other.Rank >= wanted.Rank)
                Tell($"a thread takes the lock of {wanted.Rank} while it holds that of {other.Rank}, which comes {(other.Rank == wanted.Rank ? "at the same place" : "after it")} in the order");
        }
        held.Add(wanted);
    }

    internal static void Released(OrderedLock released) => _ = t_held!.Remove(released);

    /// <summary>Forgets what was found, by the tests of the witness itself.</summary>
    internal static void Clear()
    {
        s_violations.Clear();
        t_held?.Clear();
    }

    [DoesNotReturn]
    private static void Tell(string violation)
    {
        s_violations.Enqueue($"{violation}\n{Environment.StackTrace}");
        throw new SynchronizationLockException($"Locks: {violation}.");
    }
}
