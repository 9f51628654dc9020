using Vmm.Core;
using Vmm.Core.Events;
using Vmm.Machine.Configuration;

namespace Vmm.Machine;

/// <summary>The threads that serve the queues of virtio devices. They outlive a reboot of the guest.</summary>
internal sealed class IoThreads : IDisposable
{
    private readonly List<EventLoop> _loops = [];
    private int _next;

    /// <summary>Starts them.</summary>
    /// <param name="config">How many, and where they run.</param>
    /// <param name="failed">Told, on one of them, of an exception that nobody caught.</param>
    /// <exception cref="VmmException">One cannot run where it is told to.</exception>
    internal IoThreads(IoThreadsConfig config, Action<Exception> failed)
    {
        try
        {
            for (int i = 0; i < config.Count; i++)
            {
                int number = i;
                var loop = new EventLoop($"io{number}", failed);
                _loops.Add(loop);
                if (CpuAffinity.Of(config.Affinity, number) is { } cpus)
                    loop.Invoke(() => ThreadAffinity.Pin(cpus, $"I/O thread {number}"));
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    internal IReadOnlyList<EventLoop> Loops => _loops;

    /// <summary>A life begins: the same devices in the same order get the same threads, which may be pinned.</summary>
    internal void Begin() => _next = 0;

    /// <summary>The loops of a device with some queues: the next ones in turn, so that devices share the threads evenly.</summary>
    internal EventLoop[] Take(int queues)
    {
        var taken = new EventLoop[Math.Min(queues, _loops.Count)];
        for (int i = 0; i < taken.Length; i++)
            taken[i] = _loops[_next++ % _loops.Count];
        return taken;
    }

    public void Dispose()
    {
        foreach (EventLoop loop in _loops)
            loop.Dispose();
        _loops.Clear();
    }
}
