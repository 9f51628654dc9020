using Vmm.Core;
using Vmm.Core.Boot;
using Vmm.Devices.Debugging;
using Vmm.Machine;
using Vmm.Machine.Console;
using Vmm.Testing.Reports;
using Vmm.Testing.Specification;
using Vmm.Testing.Triage;

namespace Vmm.Testing.Running;

/// <summary>
/// One attempt at a test: a machine from its start to its verdict, and what is asked of it when it failed. The first thing that decides wins; time decides
/// only where a limit says so.
/// </summary>
internal sealed class Attempt : IConsoleListener, IMachineObserver
{
    /// <summary>A kernel that has begun to report and writes nothing for so long has ended its report.</summary>
    private static readonly TimeSpan s_settled = TimeSpan.FromSeconds(2);

    /// <summary>How long a guest that hangs has to answer a non-maskable interrupt.</summary>
    private static readonly TimeSpan s_answer = TimeSpan.FromSeconds(10);

    /// <summary>How long a guest that failed may go on to speak, and how long a debugger may take for the next piece of an answer.</summary>
    private static readonly TimeSpan s_dialogue = TimeSpan.FromMinutes(2);
    private static readonly TimeSpan s_silentDebugger = TimeSpan.FromSeconds(15);

    private readonly TestCase _test;
    private readonly TimeProvider _time;
    private readonly Action<string> _progress;
    private readonly ConsoleLogWriter? _log;
    private readonly KernelSymbols? _symbols;
    private readonly long _began;
    private readonly TaskCompletionSource _decided = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _told = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _reported = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _debugging = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _have = new(TaskCreationOptions.RunContinuationsAsynchronously);

    // Guards all of the below; a leaf.
    private readonly object _gate = new();
    private readonly ConsoleWatch _watch;
    private readonly List<ITimer> _timers = [];
    private ITimer? _stepTimer;
    private ITimer? _settleTimer;
    private VirtualMachine? _machine;
    private Outcome? _outcome;
    private long _lastOutput;
    private int _limitedStep = -1;
    private int _reboots;
    private bool _panicked;
    private string? _vcpus;

    /// <summary>Makes it; nothing happens yet.</summary>
    /// <param name="test">What to run.</param>
    /// <param name="log">Takes the console; null for nobody.</param>
    /// <param name="symbols">The kernel's; null for none.</param>
    /// <param name="progress">Told what the attempt is at.</param>
    /// <param name="time">The clock for limits.</param>
    internal Attempt(TestCase test, ConsoleLogWriter? log, KernelSymbols? symbols, Action<string> progress, TimeProvider time)
    {
        (_test, _log, _symbols, _progress, _time) = (test, log, symbols, progress, time);
        _watch = new ConsoleWatch(test.Spec);
        _began = time.GetTimestamp();
        _lastOutput = _began;
    }

    private TestSpec Spec => _test.Spec;

    /// <summary>Runs it.</summary>
    /// <param name="cancel">Somebody ends the run.</param>
    internal async Task<AttemptRecord> RunAsync(CancellationToken cancel)
    {
        using CancellationTokenRegistration registration = cancel.Register(() => Decide(new Outcome(Verdict.Interrupted, "interrupted", "The run was ended before the test had its verdict.")));
        try
        {
            await RunMachineAsync(cancel).ConfigureAwait(false);
        }
        catch (VmmException e)
        {
            Decide(new Outcome(Verdict.VmmError, e.Message, e.Message));
        }
        catch (OperationCanceledException)
        {
            // Decided by the registration above.
        }
        finally
        {
            StopTimers();
            _have.TrySetResult();
        }
        lock (_gate)
        {
            List<StepResult> steps = [.. _watch.Done];
            if (!_watch.StepsDone)
                steps.Add(new StepResult(Spec.Steps[_watch.Step].Description, false, Elapsed));
            return new AttemptRecord(_outcome ?? new Outcome(Verdict.Interrupted, "interrupted", "The run was ended before the test had its verdict."), Elapsed)
            {
                Excerpt = _outcome?.Verdict == Verdict.Pass ? "" : Excerpt(),
                Steps = steps,
                Answers = _watch.Debugger.Answers,
                Vcpus = _outcome?.Verdict == Verdict.Pass ? null : _vcpus,
            };
        }
    }

    private TimeSpan Elapsed => _time.GetElapsedTime(_began);

    private async Task RunMachineAsync(CancellationToken cancel)
    {
        lock (_gate)
            StartTimers();
        VirtualMachine machine = await StartAsync(cancel).ConfigureAwait(false);
        await using (machine.ConfigureAwait(false))
        {
            lock (_gate)
            {
                _machine = machine;
                _watch.Begin(Elapsed);
                LimitStep();
            }
            _have.TrySetResult();
            AfterText();
            Task<VmExit> ended = machine.WaitForExitAsync(CancellationToken.None);
            await Task.WhenAny(ended, _decided.Task).ConfigureAwait(false);
            if (!ended.IsCompleted && _outcome is { Verdict: not (Verdict.Pass or Verdict.Interrupted) } failed)
                await AskAsync(machine, failed, ended).ConfigureAwait(false);
            machine.Stop("The test has its verdict.");
            Conclude(await ended.ConfigureAwait(false));
        }
    }

    /// <summary>Starts the machine, which the test's limits end too: it may wait for a back-end that does not come.</summary>
    private async Task<VirtualMachine> StartAsync(CancellationToken cancel)
    {
        using var giveUp = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        Task<VirtualMachine> start = VirtualMachine.StartAsync(_test.Config, new VirtualMachineOptions { Observer = this, Listener = this }, giveUp.Token);
        if (await Task.WhenAny(start, _decided.Task).ConfigureAwait(false) != start)
            await giveUp.CancelAsync().ConfigureAwait(false);
        return await start.ConfigureAwait(false);
    }

    void IConsoleListener.Line(TimeSpan at, string line)
    {
        lock (_gate)
        {
            _log?.Line(at, line);
            _lastOutput = _time.GetTimestamp();
            _watch.Line(Elapsed, line);
        }
        AfterText();
        if (line.Length > 0)
            _progress(line);
    }

    void IConsoleListener.Unfinished(TimeSpan at, string text)
    {
        lock (_gate)
        {
            _lastOutput = _time.GetTimestamp();
            _watch.Unfinished(Elapsed, text);
        }
        AfterText();
    }

    void IMachineObserver.Started(LoadedKernel kernel)
    {
    }

    void IMachineObserver.DeviceTrouble(string sentence) => _progress(sentence);

    void IMachineObserver.BootMark(BootMark mark)
    {
    }

    void IMachineObserver.Panicked()
    {
        lock (_gate)
        {
            _panicked = true;
            _settleTimer?.Change(s_settled, Timeout.InfiniteTimeSpan);
        }
    }

    void IMachineObserver.Ending(VmExit exit)
    {
        // Between the start of the guest and the moment when this attempt knows its machine there are only instructions.
        _have.Task.Wait();
        if (_machine is not { } machine || exit.Reason is VmExitReason.PowerOff or VmExitReason.Stopped || exit is { Reason: VmExitReason.GuestExit, GuestCode: 0 })
            return;
        machine.DrainConsole();
        Describe(machine);
    }

    void IMachineObserver.Restarting()
    {
        int reboots;
        lock (_gate)
            reboots = ++_reboots;
        if (reboots > Spec.MaxReboots)
            Decide(new Outcome(Verdict.RebootLoop, "reboot loop", $"The guest rebooted {reboots} times; it may do so {Spec.MaxReboots} times."));
    }

    /// <summary>Types what the text asks for, and takes the verdict that it gave.</summary>
    private void AfterText()
    {
        lock (_gate)
        {
            // Before the attempt knows its machine nothing is typed; it comes here again then.
            while (_machine != null && _watch.ToSend.TryDequeue(out string? text))
                _ = _machine.Console.SendAsync(text);
            if (_watch.Outcome != null)
                Settle(_watch.Outcome);
            if (_watch.Debugger.IsActive)
                _debugging.TrySetResult();
            if (_watch.Debugger.IsDone)
                _told.TrySetResult();
            if (_watch.IsCollecting || ((_panicked || _watch.PanicAsExpected) && _outcome == null))
                _settleTimer?.Change(s_settled, Timeout.InfiniteTimeSpan);
            else if (_outcome != null && _watch.Telling.Any())
                _reported.TrySetResult();
            LimitStep();
        }
    }

    private void Decide(Outcome outcome)
    {
        lock (_gate)
            Settle(outcome);
    }

    // With the lock held.
    private void Settle(Outcome outcome)
    {
        if (_outcome != null)
            return;
        _outcome = outcome;
        if (outcome != _watch.Outcome)
            _watch.DecidedOtherwise();
        _decided.TrySetResult();
    }

    private void StartTimers()
    {
        _settleTimer = Timer(Flush);
        _stepTimer = Timer(StepTookTooLong);
        ITimer whole = Timer(() => Decide(new Outcome(
            Verdict.Timeout, $"timeout{Waiting()}", $"The test took longer than {TimeLimit.Format(Spec.Timeout)}{Waiting()}.")));
        whole.Change(Spec.Timeout, Timeout.InfiniteTimeSpan);
        LimitStep();
        if (Spec.Hang is not { } hang)
            return;
        ITimer? silence = null;
        silence = Timer(() => Listen(hang, silence!));
        silence.Change(hang, Timeout.InfiniteTimeSpan);
    }

    private ITimer Timer(Action due)
    {
        ITimer timer = _time.CreateTimer(static due => ((Action)due!)(), due, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
        _timers.Add(timer);
        return timer;
    }

    private void StopTimers()
    {
        lock (_gate)
        {
            foreach (ITimer timer in _timers)
                timer.Dispose();
        }
    }

    // With the lock held.
    private void LimitStep()
    {
        if (_stepTimer == null || _limitedStep == _watch.Step)
            return;
        _limitedStep = _watch.Step;
        TimeSpan limit = _watch.StepsDone ? Timeout.InfiniteTimeSpan : Spec.Steps[_watch.Step].Timeout ?? Spec.StepTimeout ?? Timeout.InfiniteTimeSpan;
        _stepTimer.Change(limit, Timeout.InfiniteTimeSpan);
        if (!_watch.StepsDone)
            _progress(Spec.Steps[_watch.Step].Description);
    }

    private void StepTookTooLong()
    {
        lock (_gate)
        {
            if (_watch.StepsDone)
                return;
            TestStep step = Spec.Steps[_watch.Step];
            if ((step.Timeout ?? Spec.StepTimeout) is { } limit)
                Settle(new Outcome(Verdict.Timeout, $"timeout{Waiting()}", $"Step {_watch.Step + 1} took longer than {TimeLimit.Format(limit)}{Waiting()}."));
        }
    }

    private void Listen(TimeSpan hang, ITimer timer)
    {
        lock (_gate)
        {
            TimeSpan silent = _time.GetElapsedTime(_lastOutput);
            if (silent >= hang)
                Settle(new Outcome(Verdict.Hang, "no output", $"The console was silent for {TimeLimit.Format(hang)}{Waiting()}."));
            else if (_outcome == null)
                timer.Change(hang - silent, Timeout.InfiniteTimeSpan);
        }
    }

    private void Flush()
    {
        lock (_gate)
        {
            _watch.Flush();
            if (_watch.Outcome == null && (_panicked || _watch.PanicAsExpected))
                Settle(Judge(new VmExit(VmExitReason.Panic, "The guest's kernel panicked.")));
        }
        AfterText();
    }

    private string Waiting() => _watch.StepsDone ? "" : $" in step {_watch.Step + 1}, {Spec.Steps[_watch.Step].Description}";

    /// <summary>Asks a guest that failed and still runs what there is to know.</summary>
    private async Task AskAsync(VirtualMachine machine, Outcome failed, Task ended)
    {
        // Before its console is quiet a kernel that reported a fault may still come to its debugger.
        if (failed.Verdict is Verdict.Panic or Verdict.Oops or Verdict.Warning)
            await QuietAsync(ended, s_settled, _debugging.Task).ConfigureAwait(false);
        Describe(machine);
        if (_watch.Debugger.IsActive)
        {
            await QuietAsync(ended, s_silentDebugger, _told.Task).ConfigureAwait(false);
            lock (_gate)
                _watch.Debugger.End();
            return;
        }
        if (!Spec.NmiOnHang || failed.Verdict is not (Verdict.Hang or Verdict.Timeout) || failed.Title != "no output" && failed.Verdict == Verdict.Hang)
            return;
        try
        {
            machine.SendNmi();
        }
        catch (VmmException)
        {
            return;
        }
        await Task.WhenAny(ended, _reported.Task, Task.Delay(s_answer, _time)).ConfigureAwait(false);
    }

    /// <summary>Waits until the console has been silent for so long, or one of the tasks is done; two minutes at most.</summary>
    private async Task QuietAsync(Task ended, TimeSpan silence, Task done)
    {
        long began = _time.GetTimestamp();
        while (_time.GetElapsedTime(began) < s_dialogue)
        {
            TimeSpan silent;
            lock (_gate)
                silent = _time.GetElapsedTime(_lastOutput);
            if (silent >= silence)
                return;
            Task first = await Task.WhenAny(ended, done, Task.Delay(silence - silent, _time)).ConfigureAwait(false);
            if (first == ended || first == done)
                return;
        }
    }

    private void Describe(VirtualMachine machine)
    {
        ulong offset;
        lock (_gate)
            offset = _watch.KernelOffset;
        string text;
        try
        {
            text = machine.DescribeVcpus(_symbols == null ? null : new MovedSymbols(_symbols, offset));
        }
        catch (VmmException e)
        {
            text = e.Message;
        }
        lock (_gate)
        {
            if (text.Length > 0)
                _vcpus ??= text;
        }
    }

    /// <summary>The machine has ended, and its console has told everything.</summary>
    private void Conclude(VmExit exit)
    {
        lock (_gate)
        {
            _watch.Flush();
            if (_watch.Outcome != null)
                Settle(_watch.Outcome);
            // Where it rebooted after its panic, that is not how it ended.
            if (_outcome == null)
                Settle(Judge(_panicked && exit.Reason == VmExitReason.Reboot ? new VmExit(VmExitReason.Panic, "The guest's kernel panicked.") : exit));
            if (_outcome?.Verdict is Verdict.TripleFault or Verdict.KvmError && exit.Report != null)
                _vcpus = exit.Report;
        }
    }

    private Outcome Judge(VmExit exit)
    {
        uint? code = exit.Reason == VmExitReason.GuestExit ? exit.GuestCode : _watch.Code;
        string how = exit.Reason == VmExitReason.GuestExit ? "ended its machine by the exit port" : exit.Reason == VmExitReason.PowerOff ? "powered off" : "rebooted";
        switch (exit.Reason)
        {
            case VmExitReason.HostError:
                return new Outcome(Verdict.VmmError, exit.Message, exit.Message);
            case VmExitReason.KvmInternalError:
                return new Outcome(Verdict.KvmError, "KVM internal error", exit.Message);
            case VmExitReason.Stopped:
                return new Outcome(Verdict.Interrupted, "interrupted", exit.Message);
            case VmExitReason.TripleFault when !Spec.Exits.Contains(exit.Reason):
                return new Outcome(Verdict.TripleFault, "triple fault", exit.Message);
            case VmExitReason.Panic when !Spec.Exits.Contains(exit.Reason):
                return new Outcome(Verdict.Panic, "guest panic", exit.Message);
        }
        if (exit.Reason is VmExitReason.Panic or VmExitReason.TripleFault)
            code = null;
        if (code is { } given && given != (Spec.Code ?? 0))
            return new Outcome(Verdict.GuestFailure, $"guest code {given}", $"The guest handed over code {given}{(Spec.Code is { } wanted ? $" instead of {wanted}" : "")}.");
        if (!_watch.StepsDone)
            return new Outcome(Verdict.ExpectationNotMet, Spec.Steps[_watch.Step].Description, $"The guest {Ended(exit, how)} before step {_watch.Step + 1}, {Spec.Steps[_watch.Step].Description}.");
        if (Spec.Code is { } expected && code == null)
            return new Outcome(Verdict.ExpectationNotMet, $"guest code {expected}", $"The guest {Ended(exit, how)} without handing over a code.");
        if (Spec.Exits.Contains(exit.Reason) || (Spec.Exits.Contains(VmExitReason.Panic) && _watch.PanicAsExpected))
            return Outcome.Passed;
        if (Spec.Exits.Count == 0 && (code != null || exit.Reason == VmExitReason.PowerOff))
            return Outcome.Passed;
        string expectation = Spec.Exits.Count == 0 ? "poweroff" : string.Join(" or ", Spec.Exits.Select(TestSpec.Name));
        return new Outcome(Verdict.ExpectationNotMet, $"exit {expectation}", $"The guest {Ended(exit, how)}; expected was {expectation}.");
    }

    private static string Ended(VmExit exit, string how) => exit.Reason switch
    {
        VmExitReason.Panic => "panicked",
        VmExitReason.TripleFault => "shut down by a triple fault",
        _ => how,
    };

    // With the lock held. What the kernel reported says more than the last lines.
    private string Excerpt() => string.Join("\n", _watch.Telling.Select(report => report.Text)) is { Length: > 0 } reports ? reports : _watch.Tail;
}

/// <summary>The symbols of a kernel that has moved itself.</summary>
internal sealed class MovedSymbols(KernelSymbols symbols, ulong offset) : IKernelSymbols
{
    public bool TryFind(ulong address, out string name, out ulong within) => symbols.TryFind(address - offset, out name, out within);
}
