using System.Diagnostics;
using System.Globalization;
using System.Text;
using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Core.Sockets;

namespace Vmm.Machine.BackEnds;

/// <summary>
/// A back-end that this program starts, and starts again when it ends: a command that is given to the shell, with {fd} for the number of a
/// descriptor of the socket to accept on, or {socket} for the path to listen at. What it prints goes into the log under the device's name.
/// </summary>
internal sealed class BackEndProcess : IDisposable
{
    private const int FirstPause = 100;
    private const int LongestPause = 5_000;
    private const int Grace = 2_000;

    // A line of a program that prints without an end.
    private const int LongestLine = 1_000;

    private static readonly object s_spawning = new();

    private readonly string _id;
    private readonly string _command;
    private readonly bool _restarts;
    private readonly Action<string> _report;
    private readonly DirectoryInfo _directory;
    private readonly bool _inherits;
    private readonly object _lock = new();
    private readonly Thread _supervisor;
    private readonly CancellationTokenSource _ended = new();
    private Process? _process;

    // What it accepts on. Each has one of its own: who connected to the one before, and was not accepted, finds out that it is gone.
    private UnixListener? _listener;
    private int _exitCode;
    private bool _disposed;

    private BackEndProcess(string id, string command, bool restarts, Action<string> report)
    {
        _id = id;
        _command = command;
        _restarts = restarts;
        _report = report;
        // For this user only, as is what is made in it.
        _directory = Directory.CreateTempSubdirectory("vmm-");
        Socket = Path.Combine(_directory.FullName, "socket");
        _inherits = command.Contains("{fd}", StringComparison.Ordinal);
        _supervisor = new Thread(Supervise, maxStackSize: 256 * 1024) { IsBackground = true, Name = $"exec-{id}" };
    }

    /// <summary>Where it can be connected to.</summary>
    internal string Socket { get; }

    /// <summary>The first end of it: until a first connection nothing else may end it.</summary>
    internal CancellationToken Ended => _ended.Token;

    /// <summary>Its last exit code.</summary>
    internal int ExitCode => Volatile.Read(ref _exitCode);

    /// <summary>Starts it.</summary>
    /// <param name="id">The device's name.</param>
    /// <param name="command">For /bin/sh.</param>
    /// <param name="restarts">Whether it is started again when it ends.</param>
    /// <param name="report">Takes what it prints and how it ends. Any thread.</param>
    /// <exception cref="VmmException">It cannot be started.</exception>
    internal static BackEndProcess Start(string id, string command, bool restarts, Action<string> report)
    {
        var process = new BackEndProcess(id, command, restarts, report);
        try
        {
            process._process = process.Spawn();
            process._supervisor.Start();
            return process;
        }
        catch
        {
            process.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        Process? running;
        lock (_lock)
        {
            if (_disposed)
                return;
            _disposed = true;
            running = _process;
            Monitor.PulseAll(_lock);
        }
        if (running != null)
            End(running);
        if ((_supervisor.ThreadState & System.Threading.ThreadState.Unstarted) == 0)
            _supervisor.Join();
        _process?.Dispose();
        _listener?.Dispose();
        _ended.Dispose();
        try
        {
            _directory.Delete(recursive: true);
        }
        catch (IOException)
        {
            // Somebody was faster.
        }
    }

    private Process Spawn()
    {
        // One at a time: the descriptor is inherited by whoever is started while it is open.
        lock (s_spawning)
            return SpawnAlone();
    }

    private Process SpawnAlone()
    {
        string command = _command.Replace("{socket}", Socket, StringComparison.Ordinal);
        FileDescriptor? inherited = null;
        if (_inherits)
        {
            _listener = UnixListener.Listen(Socket, $"the socket of {_id}");
            // A duplicate, so that ours is never inherited by anybody else.
            inherited = new FileDescriptor(LibC.fcntl(_listener.Number, LibC.F_DUPFD_CLOEXEC, 3));
            if (inherited.IsInvalid)
                throw VmmException.Host($"Cannot start the back-end of {_id}: {LibC.strerror(LibC.errno)}. Raise the limit on open files (ulimit -n).");
            _ = LibC.fcntl(inherited.Number, LibC.F_SETFD, 0);
            // It accepts when it likes, and waits then, as it would on a socket of its own.
            _ = LibC.fcntl(inherited.Number, LibC.F_SETFL, LibC.O_RDWR);
            command = command.Replace("{fd}", inherited.Number.ToString(CultureInfo.InvariantCulture), StringComparison.Ordinal);
        }
        using (inherited)
        {
            // All three are redirected: the terminal is the guest's.
            var start = new ProcessStartInfo("/bin/sh", ["-c", $"exec {command}"])
            {
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            };
            try
            {
                Process process = Process.Start(start)!;
                process.StandardInput.Close();
                _ = TellLines(process.StandardOutput);
                _ = TellLines(process.StandardError);
                return process;
            }
            catch (Exception e) when (e is System.ComponentModel.Win32Exception or IOException)
            {
                throw VmmException.Host($"Cannot start the back-end of {_id}: {e.Message}. Correct exec=.");
            }
        }
    }

    private void Supervise()
    {
        ThreadName.Publish();
        int pause = FirstPause;
        while (true)
        {
            Process process = _process!;
            long began = Environment.TickCount64;
            // With a limit, since without one it would wait for all who may write to its outputs: what it started itself may live on.
            while (!process.WaitForExit(int.MaxValue))
            {
            }
            lock (_lock)
            {
                if (_disposed)
                    return;
            }
            Volatile.Write(ref _exitCode, process.ExitCode);
            Withdraw();
            _ended.Cancel();
            _report($"{_id}: its back-end ended with exit code {process.ExitCode}{(_restarts ? " and is started again" : "")}");
            if (!_restarts)
                return;
            // One that ends at once is not started all the time.
            pause = Environment.TickCount64 - began > LongestPause ? FirstPause : Math.Min(pause * 2, LongestPause);
            if (!StartAgain(ref pause))
                return;
        }
    }

    /// <summary>Nobody accepts there any more, nor is what somebody listened at in the next one's way.</summary>
    private void Withdraw()
    {
        _listener?.Dispose();
        _listener = null;
        try
        {
            File.Delete(Socket);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Then there is nothing, or the next one says what is.
        }
    }

    /// <summary>Starts it again, as often as it takes; false where it is no longer wanted.</summary>
    private bool StartAgain(ref int pause)
    {
        string? told = null;
        while (true)
        {
            lock (_lock)
            {
                if (!_disposed)
                    _ = Monitor.Wait(_lock, pause);
                if (_disposed)
                    return false;
                try
                {
                    Process next = Spawn();
                    _process!.Dispose();
                    _process = next;
                    return true;
                }
                catch (VmmException e)
                {
                    Withdraw();
                    // The host's trouble may pass. It is told once for as long as it is the same.
                    if (e.Message != told)
                        _report($"{_id}: {e.Message} It is tried again, every {LongestPause / 1000} seconds in the end.");
                    told = e.Message;
                    pause = Math.Min(pause * 2, LongestPause);
                }
            }
        }
    }

    /// <summary>Tells what comes until the end, line by line. What is beyond the longest line is dropped as it comes, not kept until its end.</summary>
    private async Task TellLines(StreamReader output)
    {
        using (output)
        {
            char[] buffer = new char[4096];
            var line = new StringBuilder(LongestLine);
            try
            {
                int count;
                while ((count = await output.ReadAsync(buffer).ConfigureAwait(false)) > 0)
                {
                    foreach (char letter in buffer.AsSpan(0, count))
                        Add(line, letter);
                }
            }
            catch (Exception e) when (e is IOException or ObjectDisposedException or OperationCanceledException)
            {
                // Nobody prints there any more.
            }
            if (line.Length < LongestLine)
                Tell(line);
        }
    }

    private void Add(StringBuilder line, char letter)
    {
        if (letter == '\n')
        {
            if (line.Length < LongestLine)
                Tell(line);
            line.Clear();
        }
        else if (line.Length < LongestLine)
        {
            line.Append(letter);
            if (line.Length == LongestLine)
                Tell(line);
        }
    }

    private void Tell(StringBuilder line)
    {
        string text = line.ToString().TrimEnd('\r');
        if (!string.IsNullOrWhiteSpace(text))
            _report($"{_id}: {text}");
    }

    /// <summary>Asks it to end, and ends it where it does not.</summary>
    private static void End(Process process)
    {
        try
        {
            // Its number may be another's by then.
            if (process.HasExited)
                return;
            _ = LibC.kill(process.Id, LibC.SIGTERM);
            if (!process.WaitForExit(Grace))
                process.Kill(entireProcessTree: true);
        }
        catch (Exception e) when (e is InvalidOperationException or System.ComponentModel.Win32Exception or AggregateException)
        {
            // It has ended, or something of what it started has just done so.
        }
    }
}
