using System.Globalization;
using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Machine;
using Vmm.Machine.Configuration;

namespace Vmm.Exec;

/// <summary>
/// One command in a guest: makes its init and starts virtiofsd, makes the machine, runs it to its end and says how the command ended. Used
/// once; <see cref="Stop"/> may be called by any thread at any time.
/// </summary>
public sealed class CommandRun : IDisposable
{
    private readonly ExecOptions _options;
    private readonly InitPlan _plan;
    private readonly Guest _guest;
    private readonly CancellationTokenSource _stop = new();
    private readonly InputPort _input;
    private readonly OutputPort _output;
    private readonly OutputPort _error;
    private readonly MemoryFile _initramfs;
    private readonly VirtiofsDaemon _share;
    private readonly VirtualMachine _machine;
    private volatile bool _shareEnded;
    private volatile bool _timedOut;

    // Guards the machine against those who end it when it has ended.
    private readonly Lock _gate = new();
    private bool _isOver;

    /// <summary>Makes everything; the guest starts with <see cref="Run"/>.</summary>
    /// <param name="config">The machine. Its initramfs and file system of the root are made here.</param>
    /// <param name="options">What to run.</param>
    /// <param name="observer">Told what happens to the machine; null for nobody.</param>
    /// <param name="log">Takes sentences of virtiofsd. Any thread.</param>
    /// <param name="cancel">Ends a wait for virtiofsd.</param>
    /// <exception cref="VmmException">Something is not there or does not fit, and what to do.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    public CommandRun(VmConfig config, ExecOptions options, IMachineObserver? observer, Action<string> log, CancellationToken cancel)
    {
        ArgumentNullException.ThrowIfNull(config);
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(log);
        _options = options;
        _guest = new Guest(config, options);
        _plan = _guest.MakePlan();
        string program = VirtiofsDaemon.Find(options.Virtiofsd);
        IReadOnlyList<string> arguments = _guest.ShareArguments(VirtiofsDaemon.Help(program));
        _initramfs = Guest.MakeInitramfs(_plan);
        try
        {
            _share = VirtiofsDaemon.Start(program, arguments, log, OnShareEnded);
        }
        catch
        {
            _initramfs.Dispose();
            throw;
        }
        _input = new InputPort(InitPlan.Ports[0], options.InputDescriptor);
        _output = new OutputPort(InitPlan.Ports[1], options.OutputDescriptor);
        _error = new OutputPort(InitPlan.Ports[2], options.ErrorDescriptor);
        try
        {
            _machine = new VirtualMachine(_guest.Configure(_initramfs.Path, _share.Socket), observer, [_input, _output, _error], cancel);
        }
        catch (VmmException e)
        {
            string said = _share.LastLines;
            EndStreams();
            _share.Dispose();
            _initramfs.Dispose();
            // What virtiofsd said is the cause, where it was that which failed.
            throw _shareEnded ? ShareFailed(said.Length > 0 ? said : _share.LastLines, e) : e;
        }
        catch
        {
            EndStreams();
            _share.Dispose();
            _initramfs.Dispose();
            throw;
        }
        // It could not stop what was not there.
        if (_shareEnded)
            _machine.Stop("");
    }

    /// <summary>Runs the command to its end.</summary>
    /// <exception cref="VmmException">The machine could not be made, or its kernel could not be loaded.</exception>
    public ExecResult Run()
    {
        using var timer = new Timer(_ => OnTimeout(), null, _options.Timeout ?? System.Threading.Timeout.InfiniteTimeSpan, System.Threading.Timeout.InfiniteTimeSpan);
        VmExit exit = _machine.Run();
        // All that the command wrote has come by now, and is still to be taken by those who read it.
        _output.Finish(_stop.Token);
        _error.Finish(_stop.Token);
        return Result(exit);
    }

    /// <summary>Ends it from outside.</summary>
    /// <param name="message">One sentence that says who did.</param>
    public void Stop(string message)
    {
        lock (_gate)
        {
            if (_isOver)
                return;
            _stop.Cancel();
            _machine.Stop(message);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_gate)
        {
            if (_isOver)
                return;
            _isOver = true;
        }
        EndStreams();
        _machine.Dispose();
        _share.Dispose();
        _initramfs.Dispose();
        _stop.Dispose();
    }

    private ExecResult Result(VmExit exit)
    {
        string console = _machine.LastConsoleLines;
        if (_timedOut)
            return new ExecResult(ExecResult.TimedOut, string.Create(CultureInfo.InvariantCulture, $"The command did not end within {_options.Timeout!.Value.TotalSeconds} seconds (--timeout)."), console);
        if (_shareEnded && exit.Reason == VmExitReason.Stopped)
            return new ExecResult(ExecResult.Failed, ShareFailed(_share.LastLines, null).Message, console);
        if (exit.Reason == VmExitReason.GuestExit)
            return Result(new InitCode(exit.GuestCode), console);
        // A kernel that does not let programs use ports has init say it there.
        if (exit.Reason == VmExitReason.PowerOff && SaidOnConsole(console) is { } code)
            return Result(code, console);
        if (exit.Reason == VmExitReason.Stopped)
            return new ExecResult(ExecResult.Failed, exit.Message, console);
        bool panicked = exit.Reason == VmExitReason.Panic || console.Contains("Kernel panic", StringComparison.Ordinal);
        return exit.Reason switch
        {
            _ when panicked => Failure("The guest's kernel panicked before the command ended; its last console lines follow.", console, exit, true),
            VmExitReason.PowerOff => Failure("The guest powered off before the command ended; run it with -v to see its console.", console, exit),
            VmExitReason.Reboot => Failure("The guest rebooted before the command ended; its last console lines follow.", console, exit, true),
            _ => Failure(exit.Message, console, exit, true),
        };
    }

    private static ExecResult Failure(string message, string console, VmExit exit, bool isDetailed = false) =>
        new(ExecResult.Failed, message, exit.Report ?? console, isDetailed);

    private ExecResult Result(InitCode code, string console) => code.End switch
    {
        InitEnd.Exited => new ExecResult(code.Low),
        InitEnd.Signalled => new ExecResult(128 + code.Low),
        InitEnd.NotExecuted when code.Low == LibC.ENOENT => new ExecResult(ExecResult.NotFound, InitErrors.NotFound(_plan)),
        InitEnd.NotExecuted => new ExecResult(ExecResult.CannotExecute, InitErrors.NotExecuted(_plan, code.Low)),
        InitEnd.Failed => new ExecResult(ExecResult.Failed, InitErrors.Describe(_plan, code), console),
        // Somebody else in the guest used the port.
        _ => new ExecResult(ExecResult.Failed, string.Create(CultureInfo.InvariantCulture, $"The guest ended the machine with code 0x{code.Value:x} before the command ended."), console),
    };

    private static InitCode? SaidOnConsole(string console)
    {
        int at = console.LastIndexOf(InitProgram.ConsoleMark, StringComparison.Ordinal);
        return at >= 0 && console.Length >= at + InitProgram.ConsoleMark.Length + 8
            && uint.TryParse(console.AsSpan(at + InitProgram.ConsoleMark.Length, 8), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out uint value)
            ? new InitCode(value) : null;
    }

    private static VmmException ShareFailed(string said, VmmException? inner)
    {
        int last = said.TrimEnd().LastIndexOf('\n');
        string line = said[(last + 1)..].Trim();
        return VmmException.Host($"virtiofsd, which serves the guest's root, ended{(line.Length > 0 ? $"; it said: {line}" : " without a word")}. Try another --sandbox, or see with -v.", inner);
    }

    private void OnShareEnded()
    {
        lock (_gate)
        {
            if (_isOver)
                return;
            _shareEnded = true;
            // It may not have been made yet; the constructor looks again.
            _machine?.Stop("");
        }
    }

    private void OnTimeout()
    {
        _timedOut = true;
        Stop("");
    }

    private void EndStreams()
    {
        _input.Dispose();
        _stop.Cancel();
        _output.Finish(_stop.Token);
        _error.Finish(_stop.Token);
    }
}
