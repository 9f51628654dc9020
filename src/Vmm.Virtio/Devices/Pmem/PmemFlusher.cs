using Vmm.Core.Events;

namespace Vmm.Virtio.Devices.Pmem;

/// <summary>
/// A thread that flushes the file, one flush at a time: the disk takes milliseconds or seconds for one, and a loop that waited would let its
/// other devices wait too.
/// </summary>
internal sealed class PmemFlusher : IDisposable
{
    private readonly PmemFile _file;
    private readonly Thread _thread;
    private readonly SemaphoreSlim _wanted = new(0);
    private readonly ManualResetEventSlim _idle = new(true);
    private volatile bool _stopping;
    private volatile int _error;

    internal PmemFlusher(PmemFile file)
    {
        _file = file;
        _thread = new Thread(Run) { Name = "pmem-flush", IsBackground = true };
        _thread.Start();
    }

    /// <summary>Signalled when a flush has ended.</summary>
    internal EventNotifier Ended { get; } = new();

    /// <summary>Whether no flush is under way.</summary>
    internal bool IsIdle => _idle.IsSet;

    /// <summary>The errno of the last flush; 0 when it succeeded.</summary>
    internal int Error => _error;

    /// <summary>Begins a flush; none is under way.</summary>
    internal void Begin()
    {
        _idle.Reset();
        _wanted.Release();
    }

    /// <summary>Waits for the flush that is under way.</summary>
    internal void Wait() => _idle.Wait();

    public void Dispose()
    {
        _stopping = true;
        _wanted.Release();
        _thread.Join();
        Ended.Dispose();
        _wanted.Dispose();
        _idle.Dispose();
    }

    private void Run()
    {
        Core.ThreadName.Publish();
        while (true)
        {
            _wanted.Wait();
            if (_stopping)
                return;
            _error = _file.Flush();
            _idle.Set();
            Ended.Signal();
        }
    }
}
