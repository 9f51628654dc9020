using Vmm.Core;
using Vmm.Core.Events;
using Vmm.Machine.Configuration;

namespace Vmm.Machine;

/// <summary>The threads that serve the queues of virtio devices. They outlive a reboot of the guest.</summary>
internal sealed class IoThreads : IDisposable
{
    private readonly Action<Exception> _failed;
    private readonly Lock _lock = new();
    private readonly List<EventLoop> _loops = [];
    private EventLoop? _relay;
    private int _next;

    /// <summary>Starts them.</summary>
    /// <param name="config">How many, and where they run.</param>
    /// <param name="failed">Told, on one of them, of an exception that nobody caught.</param>
    /// <exception cref="VmmException">One cannot run where it is told to.</exception>
    internal IoThreads(IoThreadsConfig config, Action<Exception> failed)
    {
        _failed = failed;
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

    /// <summary>
    /// A thread for small work on behalf of devices that need none of these for their queues: the first of them, or one of its own, which is
    /// started when it is asked for. Any thread.
    /// </summary>
    /// <exception cref="VmmException">The process has no descriptor left.</exception>
    internal EventLoop Relay()
    {
        if (_loops.Count > 0)
            return _loops[0];
        lock (_lock)
            return _relay ??= new EventLoop("relay", _failed);
    }

    public void Dispose()
    {
        _relay?.Dispose();
        foreach (EventLoop loop in _loops)
            loop.Dispose();
        _loops.Clear();
    }
}
