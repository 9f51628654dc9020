using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Vmm.Sandbox;

/// <summary>"sandbox run": its options, and what it does.</summary>
internal sealed class SandboxRun
{
    private readonly List<(string Left, string Right)> copiesIn = [];
    private readonly List<(string Left, string Right)> copiesOut = [];
    private readonly Dictionary<string, string> environment = [];
    private SandboxOptions options = new();
    private string? directory;
    private TimeSpan timeout = Timeout.InfiniteTimeSpan;
    private bool interactive;
    private string command = "";

    public static SandboxRun Parse(ReadOnlySpan<string> arguments)
    {
        var run = new SandboxRun();
        while (arguments.Length > 0 && arguments[0].StartsWith('-') && arguments[0] != "--")
        {
            var option = arguments[0];
            arguments = arguments[1..];
            if (run.SetFlag(option))
                continue;
            if (arguments.Length == 0)
                throw new FormatException($"The option '{option}' is not known, or lacks its value; see --help.");
            run.SetValue(option, arguments[0]);
            arguments = arguments[1..];
        }
        if (arguments.Length > 0 && arguments[0] == "--")
            arguments = arguments[1..];
        if (arguments.Length == 0)
            throw new FormatException("No command was given; see --help.");
        var words = arguments.ToArray();
        run.command = words.Length == 1 ? words[0] : "exec " + string.Join(' ', words.Select(Sandbox.Quote));
        return run;
    }

    public async Task<int> RunAsync()
    {
        using var stop = new CancellationTokenSource();
        void Stop(PosixSignalContext context)
        {
            context.Cancel = true;
            try
            {
                stop.Cancel();
            }
            catch (ObjectDisposedException)
            {
                // Already on the way out.
            }
        }

        using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Stop);
        using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Stop);
        using var hangUp = PosixSignalRegistration.Create(PosixSignal.SIGHUP, Stop);
        try
        {
            await using var sandbox = await Sandbox.StartAsync(options, stop.Token).ConfigureAwait(false);
            foreach (var (source, destination) in copiesIn)
                await sandbox.CopyInAsync(source, destination, stop.Token).ConfigureAwait(false);
            var result = interactive
                ? await InteractiveAsync(sandbox, stop.Token).ConfigureAwait(false)
                : await PipedAsync(sandbox, stop.Token).ConfigureAwait(false);
            foreach (var (source, destination) in copiesOut)
                await sandbox.CopyOutAsync(source, destination, stop.Token).ConfigureAwait(false);
            if (!result.TimedOut)
                return result.ExitCode;
            await Console.Error.WriteLineAsync($"sandbox: the command was killed at its time limit of {timeout.TotalSeconds} s.").ConfigureAwait(false);
            return 124;
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            return 130;
        }
    }

    private async Task<CommandResult> PipedAsync(Sandbox sandbox, CancellationToken cancellation)
    {
        using var output = Standard(1, Console.IsOutputRedirected, Console.OpenStandardOutput);
        using var errors = Standard(2, Console.IsErrorRedirected, Console.OpenStandardError);
        return await sandbox.RunAsync(
            command,
            new CommandOptions
            {
                Timeout = timeout,
                Environment = environment,
                Directory = directory,
                KeepOutput = false,
                Input = Console.IsInputRedirected ? Standard(0, false, Console.OpenStandardInput) : null,
                OnOutput = (isError, data) => Pass(isError ? errors : output, data),
            },
            cancellation).ConfigureAwait(false);
    }

    private async Task<CommandResult> InteractiveAsync(Sandbox sandbox, CancellationToken cancellation)
    {
        using var output = Standard(1, Console.IsOutputRedirected, Console.OpenStandardOutput);
        using var terminal = HostTerminal.TryMakeRaw();
        var running = await sandbox.StartCommandAsync(
            command,
            new CommandOptions
            {
                Timeout = timeout,
                Environment = new Dictionary<string, string>(environment) { ["TERM"] = Environment.GetEnvironmentVariable("TERM") ?? "linux" },
                Directory = directory,
                KeepOutput = false,
                Terminal = terminal?.Size ?? new TerminalSize(24, 80),
                Input = Standard(0, false, Console.OpenStandardInput),
                OnOutput = (_, data) => Pass(output, data),
            },
            cancellation).ConfigureAwait(false);
        using var resized = PosixSignalRegistration.Create(PosixSignal.SIGWINCH, _ =>
        {
            if (HostTerminal.ReadSize() is { } size)
                running.ResizeAsync(size).GetAwaiter().GetResult();
        });
        return await running.WaitAsync(cancellation).ConfigureAwait(false);
    }

    // On a terminal not Console's streams: they set it to their liking and read lines by an editor of their own. To a file not a
    // FileStream: it keeps its own position, so who writes to the same file next would overwrite what it wrote.
    private static Stream Standard(int descriptor, bool redirected, Func<Stream> open) => redirected
        ? open()
        : new FileStream(new SafeFileHandle(descriptor, ownsHandle: false), descriptor == 0 ? FileAccess.Read : FileAccess.Write, 0);

    private static void Pass(Stream stream, ReadOnlySpan<byte> data)
    {
        stream.Write(data);
        stream.Flush();
    }

    private bool SetFlag(string option)
    {
        switch (option)
        {
            case "--debian":
                options = options with { Flavour = SandboxFlavour.Debian };
                return true;
            case "--icount":
                options = options with { CountInstructions = true };
                return true;
            case "--interactive":
                interactive = true;
                return true;
            case "--console":
                options = options with { OnConsole = Console.Error.Write };
                return true;
            default:
                return false;
        }
    }

    private void SetValue(string option, string value)
    {
        switch (option)
        {
            case "--copy-in":
                copiesIn.Add(CommandLine.Pair(option, value, ':'));
                break;
            case "--copy-out":
                copiesOut.Add(CommandLine.Pair(option, value, ':'));
                break;
            case "--drive":
                var drive = value.Contains(':', StringComparison.Ordinal)
                    ? CommandLine.Pair(option, value, ':')
                    : (value, Path.GetFileNameWithoutExtension(value));
                options = options with { Drives = [.. options.Drives, new SandboxDrive(drive.Item1, drive.Item2)] };
                break;
            case "--env":
                var (name, content) = CommandLine.Pair(option, value, '=');
                environment[name] = content;
                break;
            case "--directory":
                directory = value;
                break;
            case "--memory":
                options = options with { MemoryMiB = CommandLine.Number(option, value) };
                break;
            case "--cpus":
                options = options with { Cpus = CommandLine.Number(option, value) };
                break;
            case "--timeout":
                timeout = TimeSpan.FromSeconds(CommandLine.Number(option, value));
                break;
            default:
                throw new FormatException($"The option '{option}' is not known; see --help.");
        }
    }
}
