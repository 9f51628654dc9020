using System.Globalization;

namespace Vmm.Testing.Running;

/// <summary>
/// How much of the host machines may take at once: so many jobs, so much memory, so many processors. Whoever asks waits in line until there is room; one that
/// alone is too large is let in when nobody else is there.
/// </summary>
internal sealed class HostRoom
{
    /// <summary>What a machine takes beyond its guest's memory, in bytes; several times of what is measured.</summary>
    private const ulong Overhead = 32UL << 20;

    private readonly object _gate = new();
    private readonly LinkedList<(ulong Memory, int Vcpus, TaskCompletionSource Ready)> _line = new();
    private readonly int _jobs;
    private readonly ulong _memory;
    private readonly int _processors;
    private int _running;
    private ulong _memoryTaken;
    private int _vcpusTaken;

    /// <summary>Makes it.</summary>
    /// <param name="jobs">How many machines at once.</param>
    /// <param name="memory">Bytes for all of them.</param>
    /// <param name="processors">vCPUs for all of them.</param>
    internal HostRoom(int jobs, ulong memory, int processors) => (_jobs, _memory, _processors) = (jobs, memory, processors);

    /// <summary>This host's, with what is available now. For 0 jobs as many as there are processors.</summary>
    internal static HostRoom OfHost(int jobs)
    {
        int processors = Environment.ProcessorCount;
        return new HostRoom(jobs > 0 ? jobs : processors, AvailableMemory() / 10 * 9, Math.Max(processors, jobs));
    }

    /// <summary>Waits for room.</summary>
    /// <param name="memory">The guest's memory in bytes.</param>
    /// <param name="vcpus">Its processors.</param>
    /// <returns>Disposed of, it gives the room back.</returns>
    internal async Task<IDisposable> EnterAsync(ulong memory, int vcpus)
    {
        var ready = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        lock (_gate)
        {
            _line.AddLast((memory + Overhead, vcpus, ready));
            Admit();
        }
        await ready.Task.ConfigureAwait(false);
        return new Place(this, memory + Overhead, vcpus);
    }

    // In the order of asking, so that a large one is not passed by for ever. With the lock held.
    private void Admit()
    {
        while (_line.First is { } first && (_running == 0 || (_running < _jobs && _memoryTaken + first.Value.Memory <= _memory && _vcpusTaken + first.Value.Vcpus <= _processors)))
        {
            _line.RemoveFirst();
            _running++;
            _memoryTaken += first.Value.Memory;
            _vcpusTaken += first.Value.Vcpus;
            first.Value.Ready.SetResult();
        }
    }

    private void Leave(ulong memory, int vcpus)
    {
        lock (_gate)
        {
            _running--;
            _memoryTaken -= memory;
            _vcpusTaken -= vcpus;
            Admit();
        }
    }

    private static ulong AvailableMemory()
    {
        try
        {
            foreach (string line in File.ReadLines("/proc/meminfo"))
            {
                if (line.StartsWith("MemAvailable:", StringComparison.Ordinal) && line.Split(' ', StringSplitOptions.RemoveEmptyEntries) is [_, { } kib, ..] &&
                    ulong.TryParse(kib, NumberStyles.None, CultureInfo.InvariantCulture, out ulong value))
                    return value << 10;
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Without /proc, memory does not bound it.
        }
        return ulong.MaxValue / 2;
    }

    private sealed class Place(HostRoom room, ulong memory, int vcpus) : IDisposable
    {
        private int _left;

        public void Dispose()
        {
            if (Interlocked.Exchange(ref _left, 1) == 0)
                room.Leave(memory, vcpus);
        }
    }
}
