using System.Diagnostics;
using Vmm.Core;
using Vmm.Core.Boot;
using Vmm.Devices.Debugging;
using Vmm.Machine.Configuration;
using Vmm.Machine.Console;

namespace Vmm.Machine;

/// <summary>What a program that embeds a machine may add to its configuration.</summary>
public sealed record VirtualMachineOptions
{
    /// <summary>Told what happens to the machine; null for nobody.</summary>
    public IMachineObserver? Observer { get; init; }

    /// <summary>Hears the console too, besides <see cref="VirtualMachine.Console"/>; null for nobody.</summary>
    public IConsoleListener? Listener { get; init; }
}

/// <summary>The machine as an object of another program: started, spoken with, waited for.</summary>
public sealed partial class VirtualMachine : IAsyncDisposable
{
    private CapturedConsole? _captured;
    private Task<VmExit>? _run;

    /// <summary>
    /// The guest's console, of a machine that <see cref="StartAsync"/> made: the virtio console where that is <c>tty</c>, else the serial port where that is.
    /// Where neither is, it stays silent.
    /// </summary>
    public ConsoleSession Console { get; private set; } = new(() => null, null);

    /// <summary>Makes a machine and starts its guest. The console that is <c>tty</c> is <see cref="Console"/>, not this program's terminal.</summary>
    /// <param name="config">What to make; not changed.</param>
    /// <param name="options">What else there is to say; null for nothing.</param>
    /// <param name="cancel">Gives up before the guest runs; afterwards it does nothing.</param>
    /// <returns>The machine, whose guest runs. Disposing it ends the guest.</returns>
    /// <exception cref="VmmException">The machine could not be made, or its kernel could not be loaded.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled. Nothing is left of it.</exception>
    public static async Task<VirtualMachine> StartAsync(VmConfig config, VirtualMachineOptions? options = null, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(config);
        var start = new Start(config, options ?? new VirtualMachineOptions());
        using (cancel.Register(static state => ((Start)state!).GiveUp(), start))
        {
            try
            {
                return await start.Begin(cancel).ConfigureAwait(false);
            }
            catch (Exception e) when (cancel.IsCancellationRequested && e is not OperationCanceledException)
            {
                throw new OperationCanceledException("The machine's start was cancelled.", e, cancel);
            }
        }
    }

    /// <summary>Waits until the machine has ended; at once where it has.</summary>
    /// <param name="cancel">Stops waiting; the machine goes on.</param>
    /// <returns>How it ended. The console has told everything by then.</returns>
    /// <exception cref="InvalidOperationException">The machine was not made by <see cref="StartAsync"/>.</exception>
    /// <exception cref="VmmException">The machine could not be made anew when its guest rebooted.</exception>
    public Task<VmExit> WaitForExitAsync(CancellationToken cancel = default) =>
        (_run ?? throw new InvalidOperationException("The machine was not started by StartAsync.")).WaitAsync(cancel);

    /// <summary>Waits until <see cref="Console"/> and its listener have heard all that the guest has written so far. Not for the listener itself.</summary>
    public void DrainConsole() => _captured?.Drain();

    /// <summary>Ends the guest and waits until nothing is left of the machine: no thread, no descriptor, no mapping.</summary>
    public async ValueTask DisposeAsync()
    {
        if (_run is { } run)
        {
            Stop("The machine was disposed of.");
            try
            {
                await run.ConfigureAwait(false);
            }
            catch (VmmException)
            {
                // Whoever waits for the exit hears of it.
            }
        }
        Dispose();
        GC.SuppressFinalize(this);
    }

    /// <summary>Where each vCPU stands: registers, the code at the instruction pointer, with symbols also names. Empty when there is no guest.</summary>
    /// <param name="symbols">The kernel's; null for none.</param>
    public string DescribeVcpus(IKernelSymbols? symbols = null)
    {
        lock (_inspection)
            return Life?.Describe(symbols) ?? "";
    }

    /// <summary>Gives every vCPU a non-maskable interrupt: what a kernel is asked with that does not answer any more.</summary>
    /// <returns>Whether there was a guest.</returns>
    /// <exception cref="VmmException">KVM refused.</exception>
    public bool SendNmi()
    {
        lock (_inspection)
        {
            if (Life is not { } life)
                return false;
            life.SendNmi();
            return true;
        }
    }

    /// <summary>One start: the machine is made and run on a thread of its own.</summary>
    private sealed class Start(VmConfig config, VirtualMachineOptions options) : IMachineObserver
    {
        private readonly TaskCompletionSource<VirtualMachine> _started = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly TaskCompletionSource<VmExit> _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private VirtualMachine? _machine;
        private CancellationToken _cancel;

        internal Task<VirtualMachine> Begin(CancellationToken cancel)
        {
            _cancel = cancel;
            // Its stack holds what the making of a machine needs; the guest runs on others.
            new Thread(Main, 1024 * 1024) { IsBackground = true, Name = "machine" }.Start();
            return _started.Task;
        }

        internal void GiveUp()
        {
            if (!_started.Task.IsCompleted)
                Volatile.Read(ref _machine)?.Stop("The machine's start was cancelled.");
        }

        public void Started(LoadedKernel kernel)
        {
            options.Observer?.Started(kernel);
            _started.TrySetResult(_machine!);
        }

        public void Restarting() => options.Observer?.Restarting();

        public void Panicked() => options.Observer?.Panicked();

        public void Ending(VmExit exit) => options.Observer?.Ending(exit);

        public void DeviceTrouble(string sentence) => options.Observer?.DeviceTrouble(sentence);

        public void BootMark(BootMark mark) => options.Observer?.BootMark(mark);

        private void Main()
        {
            ThreadName.Publish();
            VirtualMachine? machine = null;
            try
            {
                long made = Stopwatch.GetTimestamp();
                var session = new ConsoleSession(() => machine?._captured, options.Listener);
                CapturedConsole? captured = config.Serial.Backend == ConsoleBackend.Tty || config.Console.Backend == ConsoleBackend.Tty
                    ? new CapturedConsole(session, () => Stopwatch.GetElapsedTime(made)) : null;
                machine = new VirtualMachine(config, this, null, captured, _cancel) { Console = session, _captured = captured, _run = _ended.Task };
                Volatile.Write(ref _machine, machine);
                Interlocked.MemoryBarrier();
                if (_cancel.IsCancellationRequested)
                    machine.Stop("The machine's start was cancelled.");
                VmExit exit = machine.Run();
                // The console first: who waits for the end finds its last words there.
                machine.Dispose();
                if (!_started.Task.IsCompleted)
                    throw new OperationCanceledException(exit.Message, _cancel);
                session.End(new VmmException(VmmErrorKind.Host, exit.Message));
                _ended.TrySetResult(exit);
            }
#pragma warning disable CA1031 // Whatever it is belongs to whoever waits for the machine.
            catch (Exception e)
            {
                machine?.Dispose();
                machine?.Console.End(e);
                if (!_started.TrySetException(e))
                    _ended.TrySetException(e);
                // The one that nobody waits for is not to end the program.
                _ = _ended.Task.Exception;
            }
#pragma warning restore CA1031
        }
    }
}
