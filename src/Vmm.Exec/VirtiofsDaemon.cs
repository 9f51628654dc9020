using System.Diagnostics;
using System.Globalization;
using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Core.Sockets;

namespace Vmm.Exec;

/// <summary>
/// The virtiofsd that serves the guest's root, for one run. It and its socket leave nothing behind, however this process ends: the socket has no
/// name any more when it starts, and a shell that waits at a pipe from here ends it with us.
/// </summary>
internal sealed class VirtiofsDaemon : IDisposable
{
    private const int Grace = 2_000;
    private const int HelpPatience = 10_000;
    private const int MostLines = 20;
    private const int LongestLine = 500;

    // A shell's background job does not get the terminal's Ctrl-C, which is for us to act on; virtiofsd ends when we leave it.
    private const string Guard = "trap '' INT QUIT HUP; \"$@\" </dev/null & p=$!; exec >/dev/null 2>&1; read -r x; kill $p; wait $p";

    private static readonly string[] s_places = ["/usr/libexec/virtiofsd", "/usr/lib/virtiofsd"];

    private readonly object _gate = new();
    private readonly Queue<string> _lines = [];
    private readonly FileDescriptor _path;
    private readonly Action<string> _log;
    private readonly Action _ended;
    private UnixListener? _listener;
    private Process? _process;
    private Task? _output;
    private volatile bool _over;

    private VirtiofsDaemon(FileDescriptor path, UnixListener listener, Action<string> log, Action ended)
    {
        _path = path;
        _listener = listener;
        _log = log;
        _ended = ended;
    }

    /// <summary>Where it can be connected to; by nobody but this process.</summary>
    internal string Socket => string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{_path.Number}");

    /// <summary>What it printed last.</summary>
    internal string LastLines
    {
        get
        {
            lock (_gate)
                return string.Join('\n', _lines);
        }
    }

    /// <summary>Finds the program.</summary>
    /// <param name="named">Its path, where somebody named it.</param>
    /// <exception cref="VmmException">It is not there.</exception>
    internal static string Find(string? named)
    {
        if (named != null)
            return File.Exists(named) ? named : throw VmmException.Configuration($"--virtiofsd: there is no {named}; name virtiofsd's program.");
        foreach (string directory in (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':', StringSplitOptions.RemoveEmptyEntries))
        {
            string path = Path.Combine(directory, "virtiofsd");
            if (File.Exists(path))
                return path;
        }
        return Array.Find(s_places, File.Exists)
            ?? throw VmmException.Host($"There is no virtiofsd on PATH, nor at {string.Join(" or ", s_places)}, to serve the guest's root; install it (Debian 13: apt install virtiofsd) or name it with --virtiofsd.");
    }

    /// <summary>What a program says of its options, which differ between its versions.</summary>
    /// <exception cref="VmmException">It cannot be started.</exception>
    internal static string Help(string program)
    {
        try
        {
            using Process help = Process.Start(new ProcessStartInfo(program, ["--help"]) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true })!;
            help.StandardInput.Close();
            Task<string> errors = help.StandardError.ReadToEndAsync();
            Task<string> output = help.StandardOutput.ReadToEndAsync();
            if (!help.WaitForExit(HelpPatience))
                help.Kill();
            return output.Result + errors.Result;
        }
        catch (Exception e) when (e is System.ComponentModel.Win32Exception or IOException)
        {
            throw VmmException.Host($"Cannot start {program}: {e.Message.ReplaceLineEndings(" ")}; name another with --virtiofsd.");
        }
    }

    /// <summary>Starts it.</summary>
    /// <param name="program">Its path.</param>
    /// <param name="arguments">What it is to do, but for its socket.</param>
    /// <param name="log">Takes what it prints, line by line. Any thread.</param>
    /// <param name="ended">Called when it ends by itself. Any thread.</param>
    /// <exception cref="VmmException">It cannot be started.</exception>
    internal static VirtiofsDaemon Start(string program, IEnumerable<string> arguments, Action<string> log, Action ended)
    {
        VirtiofsDaemon daemon = Listen(log, ended);
        try
        {
            daemon.Spawn(program, arguments);
            return daemon;
        }
        catch
        {
            daemon.Dispose();
            throw;
        }
    }

    /// <summary>Ends it, and waits until it has. Its client has left it.</summary>
    public void Dispose()
    {
        _over = true;
        if (_process is { } process)
        {
            // It ends by itself when its client leaves, and has then let go of all files.
            if (_output is { } output && !output.Wait(Grace))
                _log("virtiofsd did not end by itself, and is ended.");
            process.StandardInput.Close();
            if (!process.WaitForExit(Grace))
                process.Kill(entireProcessTree: true);
            process.Dispose();
        }
        _listener?.Dispose();
        _path.Dispose();
    }

    /// <summary>Makes a socket that only a descriptor of ours leads to.</summary>
    private static VirtiofsDaemon Listen(Action<string> log, Action ended)
    {
        // For this user only, and gone before anything else happens.
        DirectoryInfo directory = Directory.CreateTempSubdirectory("vmm-exec-");
        UnixListener? listener = null;
        try
        {
            string path = Path.Combine(directory.FullName, "socket");
            listener = UnixListener.Listen(path, "virtiofsd's socket");
            var socket = new FileDescriptor(LibC.open(path, LibC.O_PATH | LibC.O_CLOEXEC, 0));
            if (socket.IsInvalid)
                throw VmmException.Host($"Cannot open virtiofsd's socket {path}: {LibC.strerror(LibC.errno)}.");
            return new VirtiofsDaemon(socket, listener, log, ended);
        }
        catch
        {
            listener?.Dispose();
            throw;
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    private void Spawn(string program, IEnumerable<string> arguments)
    {
        // A duplicate, so that ours is never inherited by anybody else; it waits where it accepts.
        using var inherited = new FileDescriptor(LibC.fcntl(_listener!.Number, LibC.F_DUPFD_CLOEXEC, 3));
        if (inherited.IsInvalid)
            throw VmmException.Host($"Cannot start virtiofsd: {LibC.strerror(LibC.errno)}. Raise the limit on open files (ulimit -n).");
        _ = LibC.fcntl(inherited.Number, LibC.F_SETFD, 0);
        _ = LibC.fcntl(inherited.Number, LibC.F_SETFL, LibC.O_RDWR);
        string[] words = ["-c", Guard, "virtiofsd", program, $"--fd={inherited.Number.ToString(CultureInfo.InvariantCulture)}", .. arguments];
        var start = new ProcessStartInfo("/bin/sh", words) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true };
        try
        {
            _process = Process.Start(start)!;
        }
        catch (Exception e) when (e is System.ComponentModel.Win32Exception or IOException)
        {
            throw VmmException.Host($"Cannot start /bin/sh for virtiofsd: {e.Message.ReplaceLineEndings(" ")}.");
        }
        // Nobody but it accepts any more: where it ends, whoever connects is refused.
        _listener.Dispose();
        _listener = null;
        _output = Follow(_process.StandardError);
        _ = Drain(_process.StandardOutput);
    }

    /// <summary>Keeps and tells what it prints. Both its and the shell's end are the end of that.</summary>
    private async Task Follow(StreamReader output)
    {
        char[] buffer = new char[1024];
        var line = new System.Text.StringBuilder();
        try
        {
            int count;
            while ((count = await output.ReadAsync(buffer).ConfigureAwait(false)) > 0)
            {
                foreach (char letter in buffer.AsSpan(0, count))
                {
                    if (letter == '\n')
                        Tell(line);
                    else if (line.Length < LongestLine && letter != '\r')
                        line.Append(letter);
                }
            }
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException)
        {
            // Nobody prints there any more.
        }
        Tell(line);
        if (!_over)
            _ended();
    }

    private static async Task Drain(StreamReader output)
    {
        char[] buffer = new char[1024];
        try
        {
            while (await output.ReadAsync(buffer).ConfigureAwait(false) > 0)
            {
            }
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException)
        {
            // Nobody prints there any more.
        }
    }

    private void Tell(System.Text.StringBuilder line)
    {
        if (line.Length == 0)
            return;
        string text = line.ToString();
        line.Clear();
        lock (_gate)
        {
            _lines.Enqueue(text);
            if (_lines.Count > MostLines)
                _lines.Dequeue();
        }
        _log($"virtiofsd: {text}");
    }
}
