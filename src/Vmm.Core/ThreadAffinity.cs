using Vmm.Core.Interop;

namespace Vmm.Core;

/// <summary>Which of the host's processors a thread may run on.</summary>
internal static unsafe class ThreadAffinity
{
    private const int Words = 16;

    /// <summary>Restricts the calling thread.</summary>
    /// <param name="cpus">Processors from 0 to 1023; at least one.</param>
    /// <param name="what">The thread, for the error.</param>
    /// <exception cref="VmmException">None of them is there, or the host does not let this process use them.</exception>
    internal static void Pin(ReadOnlySpan<int> cpus, string what)
    {
        // Safe: the mask has room for every processor that is let in.
        ulong* mask = stackalloc ulong[Words];
        new Span<ulong>(mask, Words).Clear();
        foreach (int cpu in cpus)
        {
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)cpu, (uint)(Words * 64));
            mask[cpu / 64] |= 1UL << (cpu % 64);
        }
        // 0: the calling thread.
        if (LibC.sched_setaffinity(0, Words * sizeof(ulong), mask) < 0)
        {
            throw VmmException.Host(
                $"Cannot run {what} on processors {string.Join(", ", cpus.ToArray())}: {LibC.strerror(LibC.errno)}; name processors that this host has and lets this process use (affinity=).");
        }
    }
}
