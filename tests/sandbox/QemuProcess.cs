using System.Diagnostics;
using System.Globalization;
using System.Text;

namespace Vmm.Sandbox;

/// <summary>
/// The QEMU that emulates the sandbox's machine. Its standard input and output are the channel to the agent, its standard error is
/// the machine's console and QEMU's own messages.
/// </summary>
/// <remarks>
/// It cannot outlive this process: the kernel kills it when the thread that started it ends (PR_SET_PDEATHSIG), so that thread lives
/// as long as QEMU does. Its temporary disk has no name from the moment QEMU has it open.
/// </remarks>
internal sealed class QemuProcess : IAsyncDisposable
{
    private const int ConsoleTail = 16384;

    // All but the first line only save time: an emulated machine that runs our own code has nobody to be protected from.
    private const string KernelCommandLine = "console=ttyS0 panic=-1 quiet tsc=reliable"
        + " mitigations=off nokaslr lsm=capability audit=0 cryptomgr.notests no_timer_check random.trust_cpu=1";

    private readonly Process process;
    private readonly StringBuilder console = new();
    private readonly Lock consoleLock = new();
    private readonly Task consoleReader;
    private readonly Action<string>? onConsole;
    private readonly FileStream transfer;

    private readonly Thread keeper;

    private QemuProcess(Process process, Thread keeper, FileStream transfer, Action<string>? onConsole)
    {
        this.process = process;
        this.keeper = keeper;
        this.transfer = transfer;
        this.onConsole = onConsole;
        consoleReader = Task.Run(ReadConsoleAsync);
    }

    public Stream ToAgent => process.StandardInput.BaseStream;

    public Stream FromAgent => process.StandardOutput.BaseStream;

    /// <summary>The raw disk that both sides see as the same bytes; the way for bulk data.</summary>
    public FileStream Transfer => transfer;

    /// <summary>How long its busiest thread has been ready to run while other programs of the host had the processors.</summary>
    public TimeSpan Starved
    {
        get
        {
            long most = 0;
            try
            {
                // Nanoseconds on a processor, nanoseconds waiting for one, turns (the kernel's sched-stats.rst). Where the kernel does not count, it is 0.
                foreach (var task in Directory.GetDirectories($"/proc/{process.Id}/task"))
                    most = Math.Max(most, long.Parse(File.ReadAllText(task + "/schedstat").Split(' ')[1], CultureInfo.InvariantCulture));
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException or InvalidOperationException)
            {
                // A thread, or all of it, ended meanwhile.
            }
            return TimeSpan.FromMicroseconds(most / 1000.0);
        }
    }

    public string Console
    {
        get
        {
            lock (consoleLock)
                return console.ToString();
        }
    }

    public static async Task<QemuProcess> StartAsync(SandboxOptions options, string image)
    {
        var path = Path.Combine(Path.GetTempPath(), $"vmm-sandbox-{Environment.ProcessId}-{Guid.NewGuid():N}");
        var transfer = new FileStream(path, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.ReadWrite | FileShare.Delete, 1, FileOptions.DeleteOnClose);
        try
        {
            transfer.SetLength((long)options.TransferMiB << 20);
            var started = new TaskCompletionSource<Process>(TaskCreationOptions.RunContinuationsAsynchronously);
            // A thread of its own: PR_SET_PDEATHSIG means the thread that forks, and threads of the pool come and go.
            var keeper = new Thread(() => Keep(options, image, path, started)) { IsBackground = true, Name = "sandbox" };
            keeper.Start();
            return new QemuProcess(await started.Task.ConfigureAwait(false), keeper, transfer, options.OnConsole);
        }
        catch
        {
            await transfer.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        try
        {
            if (!process.HasExited)
                process.Kill(); // not its tree: QEMU has no children, and finding them reads all of /proc
        }
        catch (InvalidOperationException)
        {
            // It ended between the question and the deed.
        }
        await process.WaitForExitAsync().ConfigureAwait(false);
        await consoleReader.ConfigureAwait(false);
        keeper.Join(); // it only waited for the same end
        process.Dispose();
        await transfer.DisposeAsync().ConfigureAwait(false);
    }

    private static void Keep(SandboxOptions options, string image, string transferPath, TaskCompletionSource<Process> started)
    {
        Process process;
        try
        {
            // A session of its own, so that a ^C on our terminal reaches us and not the emulator.
            // 3 is the transfer disk. Its name goes before QEMU starts, so whatever kills us leaves no file.
            var info = new ProcessStartInfo("setpriv")
            {
                ArgumentList = { "--pdeathsig", "KILL", "sh", "-c", "exec 3<>\"$1\" && rm \"$1\" && shift && exec setsid qemu-system-x86_64 \"$@\"", "sh", transferPath },
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            };
            foreach (var argument in Arguments(options, image))
                info.ArgumentList.Add(argument);
            process = Process.Start(info)!;
        }
        catch (Exception e) when (e is System.ComponentModel.Win32Exception or InvalidOperationException)
        {
            started.SetException(new SandboxException($"The sandbox's emulator could not be started: {e.Message}. Is setpriv (package util-linux) installed?", e));
            return;
        }
        started.SetResult(process);
        process.WaitForExit();
    }

    private static List<string> Arguments(SandboxOptions options, string image)
    {
        var single = options.CountInstructions;
        List<string> arguments =
        [
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-accel", single ? "tcg,thread=single" : "tcg,thread=multi",
            "-cpu", "max,+svm,+npt",
            "-smp", single ? "1" : options.Cpus.ToString(),
            "-m", options.MemoryMiB.ToString(),
            "-kernel", Path.Combine(image, "vmlinux"),
            "-initrd", Path.Combine(image, "initramfs.cpio"),
            "-append", KernelCommandLine + (options.Flavour == SandboxFlavour.Debian ? " vmm.root" : ""),
            "-chardev", "file,id=console,path=/dev/stderr", "-serial", "chardev:console",
            "-chardev", "stdio,id=agent,signal=off",
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=vmm.agent,nr=1",
            "-drive", "id=transfer,if=none,format=raw,cache=writeback,discard=unmap,file.locking=off,file=/dev/fd/3",
            "-device", "virtio-blk-pci,drive=transfer,serial=vmm-transfer",
        ];
        if (single)
            arguments.AddRange(["-icount", "shift=0,sleep=off"]);
        if (options.Flavour == SandboxFlavour.Debian)
        {
            arguments.AddRange(
            [
                "-drive", $"id=root,if=none,format=raw,snapshot=on,cache=unsafe,file={Path.Combine(image, "root.ext4").Replace(",", ",,", StringComparison.Ordinal)}",
                "-device", "virtio-blk-pci,drive=root,serial=vmm-root",
            ]);
        }
        // Eight to a slot of the PCI bus, from the sixteenth on: by themselves they would take one each, and there are 32.
        int number = 0;
        foreach (var drive in options.Drives)
        {
            string place = $"{0x10 + (number / 8):x}.{number % 8}";
            number++;
            arguments.AddRange(
            [
                "-drive", $"id=drive-{drive.Name},if=none,format=raw,snapshot=on,cache=unsafe,discard=unmap,file={Path.GetFullPath(drive.File).Replace(",", ",,", StringComparison.Ordinal)}",
                "-device", $"virtio-blk-pci,drive=drive-{drive.Name},serial={drive.Name},addr={place},multifunction=on",
            ]);
        }
        return arguments;
    }

    private async Task ReadConsoleAsync()
    {
        using var reader = process.StandardError;
        var buffer = new char[4096];
        try
        {
            int count;
            while ((count = await reader.ReadAsync(buffer).ConfigureAwait(false)) > 0)
            {
                lock (consoleLock)
                {
                    console.Append(buffer, 0, count);
                    if (console.Length > 2 * ConsoleTail)
                        console.Remove(0, console.Length - ConsoleTail);
                }
                onConsole?.Invoke(new string(buffer, 0, count));
            }
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException)
        {
            // The console ends with the machine.
        }
    }
}
