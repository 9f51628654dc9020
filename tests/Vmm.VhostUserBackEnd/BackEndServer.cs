using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Core.Sockets;
using Vmm.VhostUserBackEnd.Rings;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd;

/// <summary>Brings a back-end and its front-ends together: listens and accepts again and again, or connects to a front-end that listens.</summary>
public sealed unsafe class BackEndServer : IDisposable
{
    private readonly UnixListener? _listener;
    private readonly string? _connectTo;
    private readonly FileDescriptor _wake = EventFd.Create();
    private readonly Thread _thread;
    private volatile bool _stopping;
    private volatile bool _accepts = true;
    private BackEndSession? _session;

    private BackEndServer(BackEnd backEnd, string path, bool connect)
    {
        BackEnd = backEnd;
        Path = path;
        if (connect)
            _connectTo = path;
        else
            _listener = UnixListener.Listen(path, "the back-end's socket");
        _thread = new Thread(Run) { IsBackground = true, Name = "back-end" };
        _thread.Start();
    }

    public BackEnd BackEnd { get; }

    public string Path { get; }

    /// <summary>Whether connections are taken; where not, they wait.</summary>
    public bool Accepts
    {
        get => _accepts;
        set
        {
            _accepts = value;
            EventFd.Signal(_wake);
        }
    }

    /// <summary>Listens at a path.</summary>
    /// <exception cref="VmmException">Something is there, or the host refuses.</exception>
    public static BackEndServer Listen(BackEnd backEnd, string path) => new(backEnd, path, connect: false);

    /// <summary>Connects to a front-end that listens, and again whenever the connection ends; every 20 ms until somebody is there.</summary>
    public static BackEndServer Connect(BackEnd backEnd, string path) => new(backEnd, path, connect: true);

    /// <summary>Listens no more and ends the connection that there is, as a process that is killed would.</summary>
    public void Dispose()
    {
        if (_stopping)
            return;
        _stopping = true;
        EventFd.Signal(_wake);
        Volatile.Read(ref _session)?.Disconnect();
        _thread.Join();
        _listener?.Dispose();
        _wake.Dispose();
    }

    private void Run()
    {
        while (!_stopping)
        {
            using UnixStream? stream = Next();
            if (stream == null)
                continue;
            BackEndSession session = BackEnd.Begin(stream);
            Volatile.Write(ref _session, session);
            if (_stopping)
                session.Disconnect();
            session.Run();
            Volatile.Write(ref _session, null);
        }
    }

    private UnixStream? Next()
    {
        if (_connectTo == null)
        {
            pollfd* wanted = stackalloc pollfd[2];
            wanted[0] = new pollfd { fd = _wake.Number, events = POLLIN };
            wanted[1] = new pollfd { fd = _accepts ? _listener!.Number : -1, events = POLLIN };
            _ = poll(wanted, 2, -1);
            EventFd.Drain(_wake);
            return _accepts && !_stopping ? _listener!.TryAccept() : null;
        }
        UnixStream? stream = _accepts ? UnixStream.TryConnect(_connectTo, out _) : null;
        if (stream == null)
        {
            EventFd.WaitAny(null, _wake, 20);
            EventFd.Drain(_wake);
        }
        return stream;
    }
}
