using Vmm.Core;
using Vmm.Core.Sockets;

namespace Vmm.Virtio.VhostUser.Gpu;

/// <summary>
/// The display that a back-end of a graphics card draws on (vhost-user-gpu): it tells its size, takes pictures, and shows them to nobody, but may keep
/// the last one in a file. It has a thread of its own for all its life, which waits for the back-end and for the file system, and for which nobody
/// waits: the back-end may be waiting for it while we wait for the back-end.
/// </summary>
internal sealed class HeadlessDisplay : IDisposable
{
    // For a file system to take the last picture.
    private const int LastWriting = 5_000;

    private readonly string _id;
    private readonly DisplaySettings _settings;
    private readonly Action<string> _log;
    private readonly Picture? _picture;
    private readonly Thread _thread;
    private readonly object _lock = new();

    // What the thread is to serve next, and what it serves.
    private UnixStream? _next, _current;
    private bool _disposed;

    /// <summary>Begins, with nobody connected.</summary>
    /// <param name="id">The device's name.</param>
    /// <param name="settings">The display.</param>
    /// <param name="log">Takes sentences about it. Any thread.</param>
    /// <exception cref="VmmException">The settings are wrong, or the screenshot cannot be written.</exception>
    internal HeadlessDisplay(string id, DisplaySettings settings, Action<string> log)
    {
        settings.Validate();
        (_id, _settings, _log) = (id, settings, log);
        _picture = settings.Screenshot is { } path ? new Picture(path, settings.ScreenshotInterval) : null;
        _thread = new Thread(Main, maxStackSize: 256 * 1024) { IsBackground = true, Name = $"dpy-{id}" };
        _thread.Start();
    }

    /// <summary>What happened.</summary>
    internal DisplayCounters Counters { get; } = new();

    /// <summary>Whether a back-end is connected, as far as is known.</summary>
    internal bool IsConnected
    {
        get
        {
            lock (_lock)
                return (_current ?? _next) != null;
        }
    }

    /// <summary>Serves a connection in place of the one before.</summary>
    /// <param name="stream">Our end; taken over.</param>
    internal void Connect(UnixStream stream)
    {
        lock (_lock)
        {
            Hang();
            if (_disposed)
            {
                stream.Dispose();
                return;
            }
            _next = stream;
            Monitor.Pulse(_lock);
        }
        Counters.CountConnect();
    }

    /// <summary>Ends the connection, without waiting for the thread.</summary>
    internal void Disconnect()
    {
        lock (_lock)
            Hang();
    }

    /// <summary>Ends the connection and the thread, once the last picture is written: a file system that hangs is not waited for.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            if (_disposed)
                return;
            _disposed = true;
            Hang();
            Monitor.Pulse(_lock);
        }
        if (!_thread.Join(LastWriting))
            _log($"{_id}: its last screenshot is not written: the file system takes too long");
    }

    private void Hang()
    {
        _next?.Dispose();
        _next = null;
        _current?.Shutdown();
        _current = null;
    }

    private void Main()
    {
        ThreadName.Publish();
        while (TryTake(out UnixStream? stream))
        {
            using (stream)
                Serve(stream);
        }
        if (_picture is { IsDirty: true } picture)
            picture.Write(Counters, Say);
    }

    private bool TryTake([System.Diagnostics.CodeAnalysis.NotNullWhen(true)] out UnixStream? stream)
    {
        lock (_lock)
        {
            while (_next == null && !_disposed)
                _ = Monitor.Wait(_lock);
            (stream, _current, _next) = (_next, _next, null);
            return stream != null;
        }
    }

    private void Serve(UnixStream stream)
    {
        string? clause;
        try
        {
            clause = new DisplayConnection(stream, _settings, Counters, _picture, Say).Serve();
        }
#pragma warning disable CA1031 // A mistake of ours costs this display, not the machine.
        catch (Exception e)
        {
            clause = $"this program failed on one of its requests, which is a defect: {e.GetType().Name}: {e.Message}";
        }
#pragma warning restore CA1031
        bool wanted;
        lock (_lock)
        {
            // Else it was ended by us, wherever it was.
            wanted = _current == stream;
            if (wanted)
                _current = null;
        }
        Counters.SetSize(0, 0);
        _picture?.SetSize(0, 0);
        if (clause == null || !wanted)
            return;
        Counters.CountBreak();
        Say($"the connection to its display is ended: {clause}");
    }

    private void Say(string clause) => _log($"{_id}: {clause}");
}
