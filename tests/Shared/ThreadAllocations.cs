namespace Vmm.Tests;

/// <summary>
/// What the calling thread allocates between two points, to the byte, whatever the threads of other tests do meanwhile.
/// </summary>
/// <remarks>
/// <see cref="GC.GetAllocatedBytesForCurrentThread"/> alone is not exact: a thread allocates from a piece of some 8 KiB of its own, and a
/// collection in the background, which any thread may have caused, takes the rest of every piece away and counts it as allocated. A
/// thread that has no piece has no rest to lose; a real allocation gets it a new one, and is counted.
/// </remarks>
internal static class ThreadAllocations
{
    /// <summary>The point to measure from. The measured code must have run before, for what is made once.</summary>
    internal static long Start()
    {
        // It takes every thread's piece away; nothing is allocated on this one until the count is read.
        GC.Collect(0, GCCollectionMode.Forced, blocking: true);
        return GC.GetAllocatedBytesForCurrentThread();
    }

    /// <summary>Bytes that this thread has allocated since; <see cref="Start"/> was called on the same thread.</summary>
    internal static long Since(long start) => GC.GetAllocatedBytesForCurrentThread() - start;

    /// <summary>
    /// The least that one of three runs allocates on this thread. What the code itself allocates is in each of them; what the runtime makes once, at a
    /// time of its own when it compiles a method again, is not.
    /// </summary>
    internal static long Least(Action run)
    {
        long least = long.MaxValue;
        for (int i = 0; i < 3 && least > 0; i++)
        {
            long before = Start();
            run();
            least = Math.Min(least, Since(before));
        }
        return least;
    }
}
