using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;

namespace Vmm.Cli.Tests.EndToEnd;

/// <summary>How a run of the program ended.</summary>
internal sealed record Outcome(int Code, string Output, string Error)
{
    /// <summary>Exactly one line on standard error, which names what is wrong and says what to do.</summary>
    internal Outcome IsOneLine(int code, params string[] parts)
    {
        Assert.True(code == Code, $"exit code {Code} instead of {code}: {Error}");
        Assert.StartsWith("vmm: ", Error, StringComparison.Ordinal);
        Assert.EndsWith("\n", Error, StringComparison.Ordinal);
        Assert.True(Error.Count(c => c == '\n') == 1, Error);
        Assert.DoesNotContain("internal error", Error, StringComparison.Ordinal);
        foreach (string part in parts)
            Assert.Contains(part, Error, StringComparison.Ordinal);
        return this;
    }
}

/// <summary>
/// The built program, run as a user runs it: the NativeAOT binary that VMM_BINARY names, else the one in the test's output. Each
/// has a directory of its own and a session of its own, so that what it leaves behind can be seen.
/// </summary>
internal sealed class VmmProgram : IDisposable
{
    internal const int Patience = 30_000;

    private string _program = Environment.GetEnvironmentVariable("VMM_BINARY") is { Length: > 0 } binary
        ? binary : Path.Combine(AppContext.BaseDirectory, "vmm");

    internal VmmProgram()
    {
        Folder = Directory.CreateTempSubdirectory("vmm-test-").FullName;
        Directory.CreateDirectory(Path.Combine(Folder, "run"));
    }

    /// <summary>Holds what the test makes.</summary>
    internal string Folder { get; }

    /// <summary>The program's working directory and place for temporary files; empty before and, but for what a test expects, after.</summary>
    internal string RunFolder => Path.Combine(Folder, "run");

    /// <summary>More environment of the program.</summary>
    internal Dictionary<string, string> Variables { get; } = [];

    /// <summary>Shell text before the program's name, as in "exec setpriv --reuid=1"; the program and its arguments follow.</summary>
    internal string Prefix { get; set; } = "exec";

    /// <summary>Shell text after the arguments: redirections.</summary>
    internal string Redirections { get; set; } = "</dev/null";

    /// <summary>Files that the program may leave in <see cref="RunFolder"/>.</summary>
    internal HashSet<string> MayRemain { get; } = [];

    /// <summary>Makes an input file.</summary>
    internal string Make(string name, ReadOnlySpan<byte> content)
    {
        string path = Path.Combine(Folder, name);
        File.WriteAllBytes(path, content);
        return path;
    }

    /// <summary>Makes a file that looks large and takes no space.</summary>
    internal string MakeSparse(string name, long length, ReadOnlySpan<byte> head)
    {
        string path = Make(name, head);
        using var file = new FileStream(path, FileMode.Open);
        file.SetLength(length);
        return path;
    }

    /// <summary>Copies the program to where another user can start it.</summary>
    internal void LetOthersRunIt()
    {
        string copy = Path.Combine(Folder, "program");
        Directory.CreateDirectory(copy);
        string from = Path.GetDirectoryName(_program)!;
        foreach (string file in Directory.GetFiles(from))
        {
            if (Path.GetFileName(file).StartsWith("vmm", StringComparison.Ordinal) || file.EndsWith(".dll", StringComparison.Ordinal))
                File.Copy(file, Path.Combine(copy, Path.GetFileName(file)));
        }

        _program = Path.Combine(copy, Path.GetFileName(_program));
        const UnixFileMode everybody = (UnixFileMode)0x1FF;
        File.SetUnixFileMode(Folder, everybody);
        File.SetUnixFileMode(RunFolder, everybody);
        File.SetUnixFileMode(_program, everybody);
    }

    /// <summary>Runs it to its end, and looks that nothing is left behind.</summary>
    internal Outcome Run(params string[] arguments)
    {
        using RunningVmm running = Start(arguments);
        return running.WaitForEnd();
    }

    internal RunningVmm Start(params string[] arguments)
    {
        string line = $"{Prefix} {Quote(_program)} {string.Join(' ', arguments.Select(Quote))} {Redirections}";

        // A session of its own: whatever it starts stays in it, so that it can be found.
        var start = new ProcessStartInfo("setsid", ["/bin/bash", "-c", line])
        {
            WorkingDirectory = RunFolder,
            UseShellExecute = false,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach (string name in start.Environment.Keys.Where(name => name.StartsWith("VMM_", StringComparison.OrdinalIgnoreCase)).ToArray())
            start.Environment.Remove(name);
        start.Environment["TMPDIR"] = RunFolder;

        // The runtime's own debugging sockets are no matter of the program, and the shipped one has none.
        start.Environment["DOTNET_EnableDiagnostics"] = "0";
        foreach ((string name, string value) in Variables)
            start.Environment[name] = value;
        return new RunningVmm(this, Process.Start(start)!);
    }

    /// <summary>Everything that a run could have left.</summary>
    internal void CheckNothingLeft(int session)
    {
        string[] remaining = [.. Directory.GetFileSystemEntries(RunFolder).Select(path => Path.GetFileName(path)!).Where(name => !MayRemain.Contains(name))];
        Assert.True(remaining.Length == 0, "Left behind: " + string.Join(", ", remaining));
        Assert.DoesNotContain(RunFolder, File.ReadAllText("/proc/net/unix"), StringComparison.Ordinal);

        // A process that was killed with the session's leader may take a moment to be gone.
        Assert.True(SpinWait.SpinUntil(() => !ProcessesOf(session).Any(), 5000), "Left behind: " + string.Join(", ", ProcessesOf(session)));
    }

    public void Dispose() => Directory.Delete(Folder, recursive: true);

    private static IEnumerable<string> ProcessesOf(int session)
    {
        foreach (string folder in Directory.GetDirectories("/proc"))
        {
            if (!int.TryParse(Path.GetFileName(folder), out _))
                continue;
            string stat;
            try
            {
                stat = File.ReadAllText(Path.Combine(folder, "stat"));
            }
            catch (IOException)
            {
                continue;
            }

            // pid (name) state ppid pgrp session ...
            string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
            if (fields[0] != "Z" && fields[3] == session.ToString(System.Globalization.CultureInfo.InvariantCulture))
                yield return stat;
        }
    }

    private static string Quote(string text) => "'" + text.Replace("'", "'\\''", StringComparison.Ordinal) + "'";
}

/// <summary>A run of the program that has not ended.</summary>
internal sealed class RunningVmm : IDisposable
{
    private readonly VmmProgram _program;
    private readonly Process _process;
    private readonly StringBuilder _output = new();
    private readonly StringBuilder _error = new();
    private readonly Thread[] _readers;

    internal RunningVmm(VmmProgram program, Process process)
    {
        (_program, _process) = (program, process);
        _readers = [Collect(process.StandardOutput, _output), Collect(process.StandardError, _error)];
    }

    internal int Id => _process.Id;

    internal string Output => Read(_output);

    internal string Error => Read(_error);

    internal bool HasExited => _process.HasExited;

    internal void ExpectOutput(string text, int times = 1) => Assert.True(
        SpinWait.SpinUntil(() => Output.Split(text).Length > times || _process.HasExited, VmmProgram.Patience) && Output.Split(text).Length > times,
        $"'{text}' did not come {times} times; there was: {Output}\n{Error}");

    internal void Kill(int signal) => Assert.Equal(0, kill(_process.Id, signal));

    internal Outcome WaitForEnd(bool nothingLeft = true)
    {
        Assert.True(_process.WaitForExit(VmmProgram.Patience), $"It did not end. Output: {Tail(Output)}\nError: {Error}");
        foreach (Thread reader in _readers)
            Assert.True(reader.Join(VmmProgram.Patience), "Somebody still has its output open.");
        if (nothingLeft)
            _program.CheckNothingLeft(_process.Id);
        return new Outcome(_process.ExitCode, Output, Error);
    }

    public void Dispose()
    {
        // By the session's process group: with a prefix such as unshare the program is a child of what was started.
        if (!_process.HasExited)
            _ = kill(-_process.Id, 9);
        _process.WaitForExit();
        _process.Dispose();
    }

    private static string Tail(string text) => text.Length <= 2000 ? text : text[^2000..];

    private static string Read(StringBuilder text)
    {
        lock (text)
            return text.ToString();
    }

    private static Thread Collect(StreamReader stream, StringBuilder into)
    {
        var thread = new Thread(() =>
        {
            char[] buffer = new char[4096];
            int read;
            while ((read = stream.Read(buffer)) > 0)
            {
                lock (into)
                    into.Append(buffer, 0, read);
            }
        })
        { IsBackground = true };
        thread.Start();
        return thread;
    }

    [DllImport("libc", SetLastError = true)]
    private static extern int kill(int pid, int signal);
}
