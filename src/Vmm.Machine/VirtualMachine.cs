using System.Diagnostics;
using Vmm.Core.Locking;
using Vmm.Core;
using Vmm.Core.Boot;
using Vmm.Core.Cpu;
using Vmm.Devices.Debugging;
using Vmm.Machine.Configuration;
using Vmm.Machine.Console;
using Vmm.Machine.Metrics;
using Vmm.Virtio.Devices.Console;

namespace Vmm.Machine;

/// <summary>
/// A virtual machine: made from a configuration, run once, ended by its guest or from outside. <see cref="Run"/> blocks the
/// calling thread; everything else may be called by any thread while it does.
/// </summary>
public sealed partial class VirtualMachine : IDisposable
{
    private readonly VmConfig _config;
    private readonly BootTimer _bootTimer;
    private readonly MachineOutside _outside;
    private readonly MetricsWriter? _metrics;

    // Guards the life and what was asked of the machine before it had one. A life's own locks are taken inside it.
    private readonly OrderedLock _lock = new(LockRank.Machine);

    // Held while somebody looks at the vCPUs of a life: it is not taken apart meanwhile. Taken before all others, never by a vCPU or a device.
    private readonly object _inspection = new();

    // Held while a life is made to stand still or go on: it is not taken apart meanwhile. Taken before all others but the one above, likewise.
    private readonly object _pausing = new();
    private bool _paused;
    private MachineLife? _life;
    private VmExit? _ended;
    private (ushort Columns, ushort Rows) _consoleSize;

    // Ends a wait for those who take the guest's last output.
    private readonly bool _hasPorts;
    private readonly CancellationTokenSource _ending = new();

    /// <summary>Checks the configuration and opens the consoles. The guest is made by <see cref="Run"/>.</summary>
    /// <param name="config">What to make; not changed.</param>
    /// <param name="observer">Told what happens meanwhile; null for nobody.</param>
    /// <param name="ports">
    /// The host's ends of named ports of the virtio console, at most <see cref="ConsoleDevice.MaximumPorts"/>; the caller's to end. A guest that ends
    /// by itself is waited for until they have taken all that it wrote.
    /// </param>
    /// <param name="cancel">Ends a wait for back-end processes, some of which connect when they like.</param>
    /// <exception cref="VmmException">The configuration cannot be run, or a console cannot be opened.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled; what had been opened is closed again.</exception>
    public VirtualMachine(VmConfig config, IMachineObserver? observer = null, IReadOnlyList<ConsolePortEnd>? ports = null, CancellationToken cancel = default)
        : this(config, observer, ports, null, cancel)
    {
    }

    // The terminal is what is at the other end of a console that is tty; null for this program's. The machine disposes of it.
    private VirtualMachine(VmConfig config, IMachineObserver? observer, IReadOnlyList<ConsolePortEnd>? ports, GuestConsole? terminal, CancellationToken cancel)
    {
        ArgumentNullException.ThrowIfNull(config);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(ports?.Count ?? 0, ConsoleDevice.MaximumPorts);
        config.CheckRunnable();
        _config = config;
        Observer = observer;
        _bootTimer = new BootTimer(Stopwatch.GetTimestamp(), ProcessClock.CpuTime(), mark => Observer?.BootMark(mark), TimeProvider.System, ProcessClock.CpuTime);
        _hasPorts = ports is { Count: > 0 };
        _outside = new MachineOutside(config, ports ?? [], new ConsoleEvents(OnCommand, OnConsoleLost), Report, OnThreadFailed, terminal, cancel);
        try
        {
            _metrics = MetricsWriter.Open(config.Metrics, Report);
        }
        catch
        {
            _outside.Dispose();
            throw;
        }
    }

    /// <summary>Where the serial console is to be found: the path of its socket or pseudo-terminal; null for the others.</summary>
    public string? SerialLocation => _outside.Serial.Location;

    /// <summary>Where the virtio console is to be found, likewise.</summary>
    public string? ConsoleLocation => _outside.Console.Location;

    /// <summary>The last lines that the guest wrote to its serial console, 40 at most.</summary>
    public string LastConsoleLines => _outside.Serial.LastLines + _outside.Console.LastLines;

    private IMachineObserver? Observer { get; }

    /// <summary>Runs the guest until it ends, through its reboots where the configuration says so.</summary>
    /// <exception cref="VmmException">The machine could not be made, or its kernel could not be loaded.</exception>
    public VmExit Run()
    {
        bool consolesStarted = false;
        while (true)
        {
            using var life = new MachineLife(_config, _outside, () => LastConsoleLines, () => Observer?.Panicked(), _bootTimer);
            lock (_pausing)
            {
                using (_lock.Enter())
                {
                    if (_ended != null)
                        return _ended;
                    _life = life;
                }
                if (_paused)
                    life.Pause();
            }
            try
            {
                life.Devices.Serial.ReceiveSpaceAvailable = _outside.Serial.SpaceAvailable;
                // What a guest before this one had no room for.
                _outside.Serial.SpaceAvailable();
                if (life.Devices.Console is { } console)
                {
                    console.ReceiveSpaceAvailable = _outside.Console.SpaceAvailable;
                    _outside.Console.SpaceAvailable();
                    using (_lock.Enter())
                        console.SetSize(_consoleSize.Columns, _consoleSize.Rows);
                }
                _metrics?.Watch(life.Vcpus, life.Devices.Virtio);
                LoadedKernel kernel = life.Start();
                Observer?.Started(kernel);
                if (!consolesStarted)
                {
                    _outside.Serial.Start(ReceiveInput);
                    _outside.Debug.Start(null);
                    _outside.Console.Start(ReceiveConsoleInput);
                    consolesStarted = true;
                }
                StartupCode.GiveBack();
                VmExit exit = life.Wait();
                Observer?.Ending(exit);
                if (exit.Reason != VmExitReason.Reboot || _config.OnReboot.Action != RebootAction.Restart)
                {
                    LetConsolesGo();
                    if (_hasPorts)
                        life.Finish(_ending.Token);
                    _outside.Virtio.BeginEnd();
                    return exit;
                }
            }
            finally
            {
                _metrics?.Release();
                lock (_inspection)
                {
                    lock (_pausing)
                    {
                        using (_lock.Enter())
                            _life = null;
                    }
                }
            }
            _bootTimer.Restart();
            Observer?.Restarting();
        }
    }

    /// <summary>Ends the machine from outside; <see cref="Run"/> returns soon. The guest is not asked.</summary>
    /// <param name="message">One sentence that says who did.</param>
    public void Stop(string message) => End(new VmExit(VmExitReason.Stopped, message));

    /// <summary>Presses the power button; false when the guest does not listen to it, or does not run.</summary>
    public bool PressPowerButton()
    {
        using (_lock.Enter())
            return _life?.Devices.PressPowerButton() ?? false;
    }

    /// <summary>Presses Ctrl-Alt-Del; false when the guest does not listen to its keyboard, or does not run.</summary>
    public bool PressCtrlAltDelete()
    {
        using (_lock.Enter())
            return _life?.Devices.PressCtrlAltDelete() ?? false;
    }

    /// <summary>
    /// Makes the guest stand still, and waits until it does: its vCPUs, then the queues of its virtio devices, which external back-ends give back
    /// when what they have begun is done (vhost-user GET_VRING_BASE; a back-end that does not within its time is let go of). The guest's watchdog
    /// waits too. A machine that does not run yet, or reboots just now, is paused from its start on. Nothing where it is paused already.
    /// </summary>
    public void Pause()
    {
        lock (_pausing)
        {
            if (_paused)
                return;
            _paused = true;
            Life?.Pause();
        }
    }

    /// <summary>Lets a guest that was paused go on; nothing where it was not.</summary>
    public void Resume()
    {
        // A pause may be waiting for a vCPU that waits for who reads a console.
        Life?.LetRun();
        lock (_pausing)
        {
            if (!_paused)
                return;
            _paused = false;
            Life?.Resume();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _metrics?.Dispose();
        _outside.Dispose();
    }

    // Only what does nothing to one that was taken apart may be called without a lock that keeps it from that.
    private MachineLife? Life
    {
        get
        {
            using (_lock.Enter())
                return _life;
        }
    }

    private void End(VmExit exit)
    {
        using (_lock.Enter())
        {
            _ended ??= exit;
            _life?.End(exit);
        }
        _ending.Cancel();
        LetConsolesGo();
    }

    private int ReceiveInput(ReadOnlySpan<byte> data)
    {
        // Between two lives there is nobody to type to. The lock keeps this one from being taken apart meanwhile.
        using (_lock.Enter())
            return _life?.Devices.Serial.Receive(data) ?? data.Length;
    }

    private int ReceiveConsoleInput(ReadOnlySpan<byte> data)
    {
        using (_lock.Enter())
            return _life?.Devices.Console?.Receive(data) ?? data.Length;
    }

    private void Report(string sentence) => Observer?.DeviceTrouble(sentence);

    // A vCPU may be waiting for room in a console whose other end takes nothing; it could not be ended.
    private void LetConsolesGo()
    {
        _outside.Serial.LetGo();
        _outside.Debug.LetGo();
        _outside.Console.LetGo();
    }

    private void OnCommand(ConsoleCommand command)
    {
        switch (command)
        {
            case ConsoleCommand.End:
                Stop("Ended from the console.");
                break;
            case ConsoleCommand.PowerButton:
                PressPowerButton();
                break;
            case ConsoleCommand.CtrlAltDelete:
                PressCtrlAltDelete();
                break;
        }
    }

    // As on a vCPU's thread: it ends this machine with a report, not the process with the terminal in raw mode.
    private void OnThreadFailed(Exception e) =>
        End(new VmExit(VmExitReason.HostError, $"vmm has a mistake in a device, {e.GetType().Name}: {e.Message}"));

    private void OnConsoleLost(VmmException error) => End(new VmExit(VmExitReason.HostError, error.Message));
}
