using System.Diagnostics;
using Vmm.Core;
using Vmm.Core.Boot;
using Vmm.Core.Cpu;
using Vmm.Devices.Debugging;
using Vmm.Machine.Configuration;
using Vmm.Machine.Console;

namespace Vmm.Machine;

/// <summary>
/// A virtual machine: made from a configuration, run once, ended by its guest or from outside. <see cref="Run"/> blocks the
/// calling thread; everything else may be called by any thread while it does.
/// </summary>
public sealed class VirtualMachine : IDisposable
{
    private readonly VmConfig _config;
    private readonly BootTimer _bootTimer;
    private readonly GuestConsole _serial;
    private readonly GuestConsole _debug;

    // Guards the life and what was asked of the machine before it had one. A life's own locks are taken inside it.
    private readonly Lock _lock = new();
    private MachineLife? _life;
    private VmExit? _ended;

    /// <summary>Checks the configuration and opens the consoles. The guest is made by <see cref="Run"/>.</summary>
    /// <param name="config">What to make; not changed.</param>
    /// <param name="observer">Told what happens meanwhile; null for nobody.</param>
    /// <exception cref="VmmException">The configuration cannot be run, or a console cannot be opened.</exception>
    public VirtualMachine(VmConfig config, IMachineObserver? observer = null)
    {
        ArgumentNullException.ThrowIfNull(config);
        config.CheckRunnable();
        _config = config;
        Observer = observer;
        _bootTimer = new BootTimer(Stopwatch.GetTimestamp(), ProcessClock.CpuTime(), mark => Observer?.BootMark(mark), TimeProvider.System, ProcessClock.CpuTime);
        var events = new ConsoleEvents(OnCommand, OnConsoleLost);
        _serial = GuestConsole.Open(config.Serial, events, input: true);
        try
        {
            _debug = GuestConsole.Open(config.DebugConsole, events, input: false);
        }
        catch
        {
            _serial.Dispose();
            throw;
        }
    }

    /// <summary>Where the serial console is to be found: the path of its socket or pseudo-terminal; null for the others.</summary>
    public string? SerialLocation => _serial.Location;

    /// <summary>The last lines that the guest wrote to its serial console, 40 at most.</summary>
    public string LastConsoleLines => _serial.LastLines;

    private IMachineObserver? Observer { get; }

    /// <summary>Runs the guest until it ends, through its reboots where the configuration says so.</summary>
    /// <exception cref="VmmException">The machine could not be made, or its kernel could not be loaded.</exception>
    public VmExit Run()
    {
        bool consolesStarted = false;
        while (true)
        {
            using var life = new MachineLife(_config, _serial, _debug, () => _serial.LastLines, _bootTimer);
            lock (_lock)
            {
                if (_ended != null)
                    return _ended;
                _life = life;
            }
            try
            {
                life.Devices.Serial.ReceiveSpaceAvailable = _serial.SpaceAvailable;
                // What a guest before this one had no room for.
                _serial.SpaceAvailable();
                LoadedKernel kernel = life.Start();
                Observer?.Started(kernel);
                if (!consolesStarted)
                {
                    _serial.Start(ReceiveInput);
                    _debug.Start(null);
                    consolesStarted = true;
                }
                VmExit exit = life.Wait();
                if (exit.Reason != VmExitReason.Reboot || _config.OnReboot.Action != RebootAction.Restart)
                {
                    LetConsolesGo();
                    return exit;
                }
            }
            finally
            {
                lock (_lock)
                    _life = null;
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
        lock (_lock)
            return _life?.Devices.PressPowerButton() ?? false;
    }

    /// <summary>Presses Ctrl-Alt-Del; false when the guest does not listen to its keyboard, or does not run.</summary>
    public bool PressCtrlAltDelete()
    {
        lock (_lock)
            return _life?.Devices.PressCtrlAltDelete() ?? false;
    }

    /// <summary>Makes every vCPU stand still, and waits until they do.</summary>
    public void Pause()
    {
        foreach (Vcpu vcpu in Vcpus)
            vcpu.RequestPause();
        foreach (Vcpu vcpu in Vcpus)
            vcpu.WaitPaused();
    }

    /// <summary>Lets the vCPUs run again.</summary>
    public void Resume()
    {
        foreach (Vcpu vcpu in Vcpus)
            vcpu.Resume();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _debug.Dispose();
        _serial.Dispose();
    }

    private IReadOnlyList<Vcpu> Vcpus
    {
        get
        {
            lock (_lock)
                return _life?.Vcpus ?? [];
        }
    }

    private void End(VmExit exit)
    {
        lock (_lock)
        {
            _ended ??= exit;
            _life?.End(exit);
        }
        LetConsolesGo();
    }

    private int ReceiveInput(ReadOnlySpan<byte> data)
    {
        // Between two lives there is nobody to type to. The lock keeps this one from being taken apart meanwhile.
        lock (_lock)
            return _life?.Devices.Serial.Receive(data) ?? data.Length;
    }

    // A vCPU may be waiting for room in a console whose other end takes nothing; it could not be ended.
    private void LetConsolesGo()
    {
        _serial.LetGo();
        _debug.LetGo();
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

    private void OnConsoleLost(VmmException error) => End(new VmExit(VmExitReason.HostError, error.Message));
}
