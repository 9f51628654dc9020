using System.Collections.Concurrent;
using System.Runtime.ExceptionServices;
using Vmm.Core.Interop;
using Vmm.Core.Locking;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Events;

/// <summary>
/// A thread that serves descriptors by epoll(7). Each ready handler gets one bounded turn a round, whatever the others have to do, so
/// that a flood from one cannot starve another.
/// </summary>
/// <remarks>
/// Descriptors are watched edge-triggered: an eventfd need not be read, and a handler that leaves something unread says so by
/// answering true. What a handler touches belongs to the loop's thread; others reach it by <see cref="Invoke"/>. A thread that
/// waits in <see cref="Invoke"/> may hold locks, so no handler takes a lock that is held over a call of <see cref="Invoke"/>.
/// </remarks>
public sealed unsafe class EventLoop : IDisposable
{
    private const int EventsPerWait = 64;

    private readonly FileDescriptor _epoll;
    private readonly EventNotifier _wake = new();
    private readonly Thread _thread;
    private readonly ConcurrentQueue<Job> _jobs = new();
    private readonly Dictionary<int, Source> _sources = [];
    private readonly Dictionary<int, Source> _bySlot = [];
    private List<Source> _ready = [];
    private List<Source> _serving = [];
    private readonly Action<Exception>? _failed;
    private int _lastSlot;
    private volatile bool _stopping;

    /// <summary>Starts the thread.</summary>
    /// <param name="name">The thread's name; the kernel shows the first 15 bytes.</param>
    /// <param name="failed">
    /// Told, on the thread, of an exception that a handler or a posted action threw, which is a defect of this program; the handler is not
    /// called again. Null: rethrown, which ends the process.
    /// </param>
    /// <param name="started">Run first on the thread: pins it to processors.</param>
    /// <exception cref="VmmException">The process has no descriptor left.</exception>
    public EventLoop(string name, Action<Exception>? failed = null, Action? started = null)
    {
        int fd = epoll_create1(EPOLL_CLOEXEC);
        if (fd < 0)
            throw VmmException.Host($"Cannot make an epoll descriptor for the thread {name}: {strerror(errno)} (errno {errno}). Raise the limit on open files (ulimit -n).");
        _epoll = new FileDescriptor(fd);
        _failed = failed;
        Watch(_wake.Number, EPOLLIN | EPOLLET, 0);
        _thread = new Thread(() => Run(started)) { Name = name, IsBackground = true };
        _thread.Start();
    }

    /// <summary>The thread's name.</summary>
    public string Name => _thread.Name!;

    /// <summary>Whether the caller is the loop's own thread.</summary>
    public bool IsCurrent => Thread.CurrentThread == _thread;

    /// <summary>
    /// Watches a descriptor, which stays open until <see cref="Remove"/>. Where it is ready already, the handler is called soon. Any thread.
    /// </summary>
    /// <param name="fd">The descriptor; each at most once.</param>
    /// <param name="handler">Called on the loop's thread.</param>
    /// <param name="writable">Watch for room to write too, not only for something to read.</param>
    /// <exception cref="VmmException">The kernel refuses to watch it.</exception>
    public void Add(int fd, IEventHandler handler, bool writable = false)
    {
        ArgumentNullException.ThrowIfNull(handler);
        Invoke(() =>
        {
            var source = new Source(fd, ++_lastSlot, handler);
            Watch(fd, EPOLLIN | (writable ? EPOLLOUT : 0) | EPOLLET, source.Slot);
            _sources.Add(fd, source);
            _bySlot[source.Slot] = source;
        });
    }

    /// <summary>Stops watching a descriptor. When it returns, its handler does not run and will not again. Any thread.</summary>
    /// <returns>False when it was not watched.</returns>
    public bool Remove(int fd)
    {
        bool removed = false;
        Invoke(() =>
        {
            if (!_sources.Remove(fd, out Source? source))
                return;
            removed = true;
            source.Removed = true;
            _bySlot.Remove(source.Slot);
            // It can only fail for a descriptor that was closed too early; then the kernel has forgotten it by itself.
            _ = epoll_ctl(_epoll.Number, EPOLL_CTL_DEL, fd, null);
        });
        return removed;
    }

    /// <summary>Calls the handler of a watched descriptor soon, as if it had become ready. Only on the loop's thread.</summary>
    public void Schedule(int fd)
    {
        if (_sources.TryGetValue(fd, out Source? source))
            MarkReady(source);
    }

    /// <summary>
    /// Runs something on the loop's thread and waits until it is done; runs it at once when that is the calling thread. An exception comes out here.
    /// </summary>
    /// <exception cref="ObjectDisposedException">The loop has ended.</exception>
    public void Invoke(Action action)
    {
        ArgumentNullException.ThrowIfNull(action);
        if (IsCurrent)
        {
            action();
            return;
        }
        var job = new Job(action, new ManualResetEventSlim());
        Enqueue(job);
        // The loop empties its queue before it ends; the thread's end is the answer for what came after.
        while (!job.Done!.Wait(100))
        {
            ObjectDisposedException.ThrowIf(!_thread.IsAlive && !job.Done.IsSet, this);
        }
        job.Error?.Throw();
    }

    /// <summary>Runs something on the loop's thread soon; it must not throw.</summary>
    public void Post(Action action)
    {
        ArgumentNullException.ThrowIfNull(action);
        Enqueue(new Job(action, null));
    }

    /// <summary>Ends the thread after its current round and waits for it. Not from the loop's own thread.</summary>
    public void Dispose()
    {
        _stopping = true;
        _wake.Signal();
        _thread.Join();
        _wake.Dispose();
        _epoll.Dispose();
    }

    private void Enqueue(Job job)
    {
        _jobs.Enqueue(job);
        _wake.Signal();
    }

    private void Watch(int fd, uint events, int slot)
    {
        var watched = new epoll_event { events = events, data = (ulong)slot };
        if (epoll_ctl(_epoll.Number, EPOLL_CTL_ADD, fd, &watched) < 0)
            throw VmmException.Host($"Cannot watch descriptor {fd}: {strerror(errno)} (errno {errno}).");
    }

    private void Run(Action? started)
    {
        ThreadName.Publish();
        started?.Invoke();
        epoll_event* events = stackalloc epoll_event[EventsPerWait];
        while (true)
        {
            RunJobs();
            if (_stopping && _jobs.IsEmpty)
                return;
            int count = epoll_wait(_epoll.Number, events, EventsPerWait, _ready.Count > 0 ? 0 : -1);
            for (int i = 0; i < count; i++)
            {
                // Slot 0 is the wake-up, whose jobs are run at the start of each round.
                if (_bySlot.TryGetValue((int)events[i].data, out Source? source))
                    MarkReady(source);
            }
            Serve();
        }
    }

    /// <summary>One turn for each that is ready.</summary>
    private void Serve()
    {
        (_serving, _ready) = (_ready, _serving);
        foreach (Source source in _serving)
        {
            source.Ready = false;
            if (source.Removed)
                continue;
            try
            {
                if (source.Handler.Handle() && !source.Removed)
                    MarkReady(source);
                LockWitness.RequireNone("returns from a handler of events");
            }
            catch (Exception e) when (_failed != null)
            {
                source.Removed = true;
                _failed(e);
            }
        }
        _serving.Clear();
    }

    private void MarkReady(Source source)
    {
        if (source.Ready)
            return;
        source.Ready = true;
        _ready.Add(source);
    }

    private void RunJobs()
    {
        while (_jobs.TryDequeue(out Job? job))
        {
            try
            {
                job.Action();
            }
            catch (Exception e) when (job.Done != null)
            {
                job.Error = ExceptionDispatchInfo.Capture(e);
            }
            catch (Exception e) when (_failed != null)
            {
                _failed(e);
            }
            job.Done?.Set();
        }
    }

    private sealed class Source(int fd, int slot, IEventHandler handler)
    {
        public readonly int Fd = fd;
        public readonly int Slot = slot;
        public readonly IEventHandler Handler = handler;
        public bool Ready;
        public bool Removed;
    }

    // The event is not disposed of: the loop may still be in its Set when the waiter goes on, and it has no handle to give back.
    private sealed class Job(Action action, ManualResetEventSlim? done)
    {
        public readonly Action Action = action;
        public readonly ManualResetEventSlim? Done = done;
        public ExceptionDispatchInfo? Error;
    }
}
