using System.Globalization;
using Vmm.Core;
using Vmm.Core.Boot;
using Vmm.Devices.Debugging;
using Vmm.Machine;
using Vmm.Machine.Configuration;
using Vmm.Machine.Console;
using Vmm.Machine.Logging;

namespace Vmm.Cli;

/// <summary><c>vmm run</c>: makes the machine, runs it to its end, and says by its exit code how it ended.</summary>
internal static class RunCommand
{
    /// <summary>Runs the machine that a configuration describes.</summary>
    /// <exception cref="VmmException">The machine cannot be made or run.</exception>
    internal static int Execute(VmConfig config)
    {
        config.CheckRunnable();
        using VmLog log = VmLog.Open(config.Log);

        // Before the terminal is made raw: a signal in between would leave it so. A machine that is being made may wait for a back-end.
        VirtualMachine? made = null;
        using var cancel = new CancellationTokenSource();
        using var signals = new TerminationSignals(number =>
        {
            cancel.Cancel();
            Volatile.Read(ref made)?.Stop(EndedBy(number));
        });
        try
        {
            made = new VirtualMachine(config, new Narrator(log), cancel: cancel.Token);
        }
        catch (OperationCanceledException)
        {
            Output.Error(EndedBy(signals.Received));
            return ExitCodes.Signal(signals.Received);
        }
        using VirtualMachine machine = made;
        // The signal may have come when it was made and not known yet.
        Interlocked.MemoryBarrier();
        if (cancel.IsCancellationRequested)
            machine.Stop(EndedBy(signals.Received));
        if (machine.SerialLocation is { } location)
            Output.Details($"vmm: the serial console is at {location}");
        if (machine.ConsoleLocation is { } consoleLocation)
            Output.Details($"vmm: the virtio console is at {consoleLocation}");
        using TerminalSize? size = config.Console.Backend == ConsoleBackend.Tty ? new TerminalSize(machine.SetConsoleSize) : null;
        VmExit exit = machine.Run();
        // The console first: what the guest wrote last stands before what is said about its end, on a terminal that is in order again.
        machine.Dispose();
        Tell(exit, log);
        return exit.Reason == VmExitReason.GuestExit ? ExitCodes.OfGuest(exit.GuestCode) : ExitCode(exit.Reason, signals.Received);
    }

    internal static string EndedBy(int signal) => $"Ended by signal {signal}.";

    private static void Tell(VmExit exit, VmLog log)
    {
        log.Info($"The machine ended: {exit.Reason}. {exit.Message}");
        if (exit.Reason is VmExitReason.PowerOff || exit is { Reason: VmExitReason.GuestExit, GuestCode: 0 })
            return;
        if (exit.Message.Length > 0)
            Output.Error(exit.Message);
        if (exit.Report != null)
            Output.Details(exit.Report.TrimEnd());
    }

    private static int ExitCode(VmExitReason reason, int signal) => reason switch
    {
        VmExitReason.PowerOff => ExitCodes.Success,
        VmExitReason.Reboot => ExitCodes.Rebooted,
        VmExitReason.Panic => ExitCodes.GuestPanic,
        VmExitReason.TripleFault => ExitCodes.TripleFault,
        VmExitReason.KvmInternalError => ExitCodes.KvmInternalError,
        VmExitReason.Stopped when signal != 0 => ExitCodes.Signal(signal),
        VmExitReason.Stopped => ExitCodes.EndedFromConsole,
        _ => ExitCodes.HostError,
    };

    /// <summary>Puts what happens to the machine into the log. What a guest can provoke comes once a boot, so it cannot flood it.</summary>
    internal sealed class Narrator(VmLog log) : IMachineObserver
    {
        private readonly RateLimitedLog _trouble = new(log, LogLevel.Warn);

        public void Started(LoadedKernel kernel)
        {
            if (kernel.FallbackReason != null)
                log.Info($"The kernel is started as {kernel.Description}, since {kernel.FallbackReason}");
            else
                log.Info($"The kernel is started as {kernel.Description}.");
        }

        public void Restarting() => log.Info("The guest rebooted.");

        public void DeviceTrouble(string sentence) => _trouble.Write(sentence, static sentence => sentence);

        public void BootMark(BootMark mark) => log.Info(string.Create(
            CultureInfo.InvariantCulture,
            $"Guest boot: {mark.Phase} code 0x{mark.Code:x2} after {mark.Wall.TotalMicroseconds:F0} us, {mark.Cpu.TotalMicroseconds:F0} CPU us."));
    }
}
