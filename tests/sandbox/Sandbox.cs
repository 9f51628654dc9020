using System.Formats.Tar;

namespace Vmm.Sandbox;

/// <summary>
/// A Linux in an emulated machine that has a real /dev/kvm (kvm_amd on emulated SVM), on any host and without hardware KVM.
/// Commands run in it as root; several per boot. Disposing of it leaves nothing behind.
/// </summary>
/// <remarks>Commands may run at the same time; copies take turns.</remarks>
public sealed class Sandbox : IAsyncDisposable
{
    private static readonly TimeSpan CopyTimeout = TimeSpan.FromMinutes(5);

    private readonly QemuProcess qemu;
    private readonly AgentConnection agent;
    private readonly SemaphoreSlim transferLock = new(1, 1);
    private int disposed;

    private Sandbox(QemuProcess qemu)
    {
        this.qemu = qemu;
        agent = new AgentConnection(qemu.ToAgent, qemu.FromAgent, () => qemu.Starved);
    }

    /// <summary>The last lines of the sandbox's own console and of its emulator's messages.</summary>
    public string Console => qemu.Console;

    /// <summary>Completes when the sandbox has ended, by itself or by being disposed of.</summary>
    public Task Ended => agent.Closed;

    // Linux patches its code while it starts, by putting int3 there first. QEMU's emulation of two processors on two threads now and then
    // executes one that the other has already replaced, and the kernel dies of it.
    private const string PatchingRace = "Oops: int3";
    private const int StartAttempts = 4;

    /// <summary>Starts a sandbox and waits for its agent. Makes its image first if it is not in the cache.</summary>
    /// <exception cref="SandboxException">The image could not be made, or the sandbox did not start; with its console.</exception>
    public static async Task<Sandbox> StartAsync(SandboxOptions? options = null, CancellationToken cancellation = default)
    {
        options ??= new SandboxOptions();
        if (options.MemoryMiB < 256 || options.Cpus < 1 || options.TransferMiB < 1)
            throw new SandboxException($"A sandbox needs at least 256 MiB of memory, 1 CPU and 1 MiB for transfers; {options.MemoryMiB} MiB, {options.Cpus} and {options.TransferMiB} MiB were asked for.");
        foreach (var drive in options.Drives)
        {
            if (!drive.IsValid || options.Drives.Count(d => d.Name == drive.Name) > 1)
                throw new SandboxException($"'{drive.Name}' is no name for a disk of the sandbox: at most {SandboxDrive.LongestName} letters, digits, dots, dashes and underscores, each name once, and none that begins with vmm-.");
            if (!File.Exists(drive.File))
                throw new SandboxException($"'{drive.File}' is to be a disk of the sandbox but does not exist.");
        }
        var image = options.ImageDirectory ?? await SandboxImage.BuildAsync(options.Flavour, cancellation).ConfigureAwait(false);
        for (var attempt = 1; ; attempt++)
        {
            try
            {
                return await StartOnceAsync(options, image, cancellation).ConfigureAwait(false);
            }
            catch (SandboxException e) when (attempt < StartAttempts && e.Message.Contains(PatchingRace, StringComparison.Ordinal))
            {
                // Nothing of ours has run in it yet, so another start hides no fault of ours.
            }
        }
    }

    private static async Task<Sandbox> StartOnceAsync(SandboxOptions options, string image, CancellationToken cancellation)
    {
        var sandbox = new Sandbox(await QemuProcess.StartAsync(options, image).ConfigureAwait(false));
        try
        {
            await sandbox.agent.Ready.WaitAsync(options.StartTimeout, cancellation).ConfigureAwait(false);
            return sandbox;
        }
        catch (Exception e)
        {
            await sandbox.DisposeAsync().ConfigureAwait(false);
            if (e is OperationCanceledException)
                throw;
            var why = e is TimeoutException ? $"its agent did not answer within {options.StartTimeout.TotalSeconds} s" : "it ended before its agent answered";
            throw new SandboxException($"The sandbox did not start: {why}. Its console ends with:\n{sandbox.Console}", e);
        }
    }

    /// <summary>Runs a shell command to its end or its time limit.</summary>
    /// <param name="command">For /bin/sh -c.</param>
    /// <param name="options">Time limit, environment, input, streaming of the output.</param>
    /// <param name="cancellation">Kills the command.</param>
    /// <exception cref="SandboxException">The sandbox ended, or the command could not be started. Not for a command that fails.</exception>
    public async Task<CommandResult> RunAsync(string command, CommandOptions? options = null, CancellationToken cancellation = default)
    {
        var running = await StartCommandAsync(command, options, cancellation).ConfigureAwait(false);
        return await running.WaitAsync(cancellation).ConfigureAwait(false);
    }

    /// <summary>Runs a shell command to its end or its time limit.</summary>
    /// <param name="command">For /bin/sh -c.</param>
    /// <param name="timeout">On the host's clock.</param>
    /// <param name="environment">Variables to add.</param>
    /// <exception cref="SandboxException">The sandbox ended, or the command could not be started.</exception>
    public Task<CommandResult> RunAsync(string command, TimeSpan timeout, IReadOnlyDictionary<string, string>? environment = null) =>
        RunAsync(command, new CommandOptions { Timeout = timeout, Environment = environment });

    /// <summary>Starts a shell command and returns at once, for those that are to be given input or signals, or to run beside others.</summary>
    /// <remarks>Its time limit counts only in <see cref="RunningCommand.WaitAsync"/>.</remarks>
    public async Task<RunningCommand> StartCommandAsync(string command, CommandOptions? options = null, CancellationToken cancellation = default)
    {
        options ??= new CommandOptions();
        var running = await agent.RunAsync(command, options).ConfigureAwait(false);
        if (options.Input is not null)
            _ = FeedAsync(running, options.Input, cancellation);
        else if (options.Terminal is null && !options.InputLater)
            await running.CloseInputAsync().ConfigureAwait(false);
        return running;
    }

    /// <summary>Copies a file, or a directory with all that is in it, into the sandbox.</summary>
    /// <param name="source">On the host.</param>
    /// <param name="destination">The path that it has in the sandbox afterwards; directories above it are made.</param>
    /// <param name="cancellation">Stops it; what is in the sandbox by then is undefined.</param>
    /// <exception cref="SandboxException">The source is missing or the sandbox is full.</exception>
    public async Task CopyInAsync(string source, string destination, CancellationToken cancellation = default)
    {
        var isDirectory = Directory.Exists(source);
        if (!isDirectory && !File.Exists(source))
            throw new SandboxException($"'{source}' is to be copied into the sandbox but does not exist.");
        await transferLock.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            var disk = qemu.Transfer;
            disk.Position = 0;
            try
            {
                if (isDirectory)
                    await PackAsync(source, disk, cancellation).ConfigureAwait(false);
                else
                {
                    await using var content = new FileStream(source, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
                    await content.CopyToAsync(disk, 1 << 20, cancellation).ConfigureAwait(false);
                }
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new SandboxException($"'{source}' could not be read for the sandbox: {e.Message}", e);
            }
            var length = disk.Position;
            if (length > disk.Length)
                throw new SandboxException($"'{source}' is too big for one copy into the sandbox ({length >> 20} MiB of {disk.Length >> 20}): copy it in parts, or set TransferMiB.");
            await disk.FlushAsync(cancellation).ConfigureAwait(false);

            var target = Quote(destination);
            // Direct, because the host wrote behind the sandbox's back; in big pieces, because system calls are dear under emulation.
            var read = $"dd if=/dev/vmm-transfer bs=1M count={(length >> 20) + 1} iflag=direct status=none";
            var unpack = isDirectory
                ? $"mkdir -p {target} && cd {target} && {read} | tar -xf -"
                : $"d=$(dirname {target}) && mkdir -p \"$d\" && rm -f {target} && {read} of={target} && truncate -s {length} {target} && chmod {Mode(source)} {target}";
            await TransferAsync($"copying '{source}' to {destination}", unpack, cancellation).ConfigureAwait(false);
        }
        finally
        {
            transferLock.Release();
        }
    }

    /// <summary>Copies a file, or a directory with all that is in it, out of the sandbox.</summary>
    /// <param name="source">In the sandbox.</param>
    /// <param name="destination">The path that it has on the host afterwards; directories above it are made, files replaced.</param>
    /// <param name="cancellation">Stops it.</param>
    /// <exception cref="SandboxException">The source is missing, or the destination cannot be written.</exception>
    public async Task CopyOutAsync(string source, string destination, CancellationToken cancellation = default)
    {
        await transferLock.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            var path = Quote(source);
            // A pipe's exit code is its last command's, so tar's goes by a file.
            var pack = $"if [ -d {path} ]; then echo directory; cd {path} && set -- -cf - .; "
                + $"else cd \"$(dirname {path})\" && set -- -chf - \"$(basename {path})\"; fi && {{ tar \"$@\"; echo $? > /run/vmm-copy; }} "
                + "| dd of=/dev/vmm-transfer bs=1M iflag=fullblock conv=fsync status=none && exit $(cat /run/vmm-copy)";
            var result = await TransferAsync($"copying {source} out to '{destination}'", pack, cancellation).ConfigureAwait(false);
            var disk = qemu.Transfer;
            disk.Position = 0;
            try
            {
                if (result.Output.StartsWith("directory", StringComparison.Ordinal))
                {
                    Directory.CreateDirectory(destination);
                    await TarFile.ExtractToDirectoryAsync(disk, destination, overwriteFiles: true, cancellation).ConfigureAwait(false);
                    return;
                }
                if (Path.GetDirectoryName(Path.GetFullPath(destination)) is { } parent)
                    Directory.CreateDirectory(parent);
                await using var reader = new TarReader(disk, leaveOpen: true);
                var entry = await reader.GetNextEntryAsync(cancellationToken: cancellation).ConfigureAwait(false)
                    ?? throw new SandboxException($"The sandbox packed nothing for {source}.");
                await entry.ExtractToFileAsync(destination, overwrite: true, cancellation).ConfigureAwait(false);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new SandboxException($"{source} of the sandbox could not be written to '{destination}': {e.Message}", e);
            }
        }
        finally
        {
            transferLock.Release();
        }
    }

    /// <summary>Ends the sandbox at once. Its processes and temporary files are gone afterwards.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref disposed, 1) != 0)
            return;
        await qemu.DisposeAsync().ConfigureAwait(false);
        await agent.Closed.ConfigureAwait(false);
    }

    /// <summary>A text as one word for the shell.</summary>
    public static string Quote(string text) => "'" + text.Replace("'", "'\\''", StringComparison.Ordinal) + "'";

    private static string Mode(string file) => Convert.ToString((int)File.GetUnixFileMode(file) & 0x1FF, 8);

    // GNU's format: busybox knows its long names, not pax's. Symbolic links stay links and are not followed into.
    private static async Task PackAsync(string source, Stream disk, CancellationToken cancellation)
    {
        await using var writer = new TarWriter(disk, TarEntryFormat.Gnu, leaveOpen: true);
        var everything = new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = 0, IgnoreInaccessible = false };
        foreach (var entry in new DirectoryInfo(source).EnumerateFileSystemInfos("*", everything))
            await writer.WriteEntryAsync(entry.FullName, Path.GetRelativePath(source, entry.FullName), cancellation).ConfigureAwait(false);
    }

    private static async Task FeedAsync(RunningCommand running, Stream input, CancellationToken cancellation)
    {
        var buffer = new byte[32768];
        try
        {
            int count;
            while (!running.HasEnded && (count = await input.ReadAsync(buffer, cancellation).ConfigureAwait(false)) > 0)
                await running.WriteInputAsync(buffer.AsMemory(0, count), cancellation).ConfigureAwait(false);
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException or OperationCanceledException)
        {
            // An input that fails has ended.
        }
        await running.CloseInputAsync().ConfigureAwait(false);
    }

    private async Task<CommandResult> TransferAsync(string what, string command, CancellationToken cancellation)
    {
        var result = await RunAsync(command, new CommandOptions { Timeout = CopyTimeout }, cancellation).ConfigureAwait(false);
        if (result.ExitCode != 0)
            throw new SandboxException($"The sandbox failed at {what}: {(result.TimedOut ? "it took too long" : result.Error.Trim())} (exit code {result.ExitCode}).");
        return result;
    }
}
