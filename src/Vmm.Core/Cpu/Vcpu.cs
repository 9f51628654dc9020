using System.Runtime.CompilerServices;
using Vmm.Core.Bus;
using Vmm.Core.Interop;
using Vmm.Core.Kvm;
using Vmm.Core.Locking;
using Vmm.Core.Memory;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Cpu;

/// <summary>
/// A vCPU and its thread. Everything that reads or changes the vCPU is a job that runs on that thread, between two KVM_RUNs and
/// after pending I/O was completed. Requests are looked at only after KVM_RUN returned EINTR, so the exit path pays nothing for them.
/// </summary>
internal sealed unsafe class Vcpu : IDisposable
{
    // How often in a row KVM_RUN may fail for memory of which nobody finds anything missing: another vCPU may just have dealt with it, or
    // whoever truncated a file has made it longer again.
    private const int MaximumUnexplainedFaults = 64;

    private readonly AddressBus _ports;
    private readonly AddressBus _mmio;
    private readonly IVcpuObserver _observer;
    private readonly Thread _thread;

    // Guards all of the below up to _thread's own fields. Innermost: nothing else is locked while it is held.
    private readonly object _lock = new();
    private readonly Queue<VcpuJob> _jobs = new();
    private bool _pauseWanted;
    private bool _paused;
    private bool _stopWanted;
    private bool _ended;
    private bool _started;
    private int _threadId;

    private VcpuCounters _counters;

    internal Vcpu(KvmVcpu kvm, AddressBus ports, AddressBus mmio, IVcpuObserver observer)
    {
        Kvm = kvm;
        _ports = ports;
        _mmio = mmio;
        _observer = observer;
        // Deep stacks are not needed: no recursion, no large buffers on the exit path.
        _thread = new Thread(Main, maxStackSize: 256 * 1024) { IsBackground = true, Name = $"vcpu{kvm.Id}" };
    }

    /// <summary>The vCPU itself; for jobs, and for set-up before <see cref="Start"/>.</summary>
    internal KvmVcpu Kvm { get; }

    /// <summary>Its number.</summary>
    internal int Id => Kvm.Id;

    /// <summary>A snapshot of its exit counters.</summary>
    internal VcpuCounters Counters => _counters;

    /// <summary>The host's processors that its thread runs on; null for all. Set before <see cref="Start"/>.</summary>
    internal int[]? Affinity { get; set; }

    /// <summary>Is asked what to do where the guest reaches host memory that is not there any more; null for nobody. Set before <see cref="Start"/>.</summary>
    internal IGuestFaultHandler? Faults { get; init; }

    /// <summary>Starts the thread. The vCPU runs at once unless a pause was asked for before.</summary>
    internal void Start()
    {
        lock (_lock)
            _started = true;
        _thread.Start();
    }

    /// <summary>
    /// Runs a job on the vCPU's thread and waits for it; at once, on this thread, before the start and after the end. Must not be
    /// called by another vCPU's thread or with a device's lock held: the vCPU may be waiting for that lock.
    /// </summary>
    /// <exception cref="VmmException">What the job threw.</exception>
    internal T Invoke<T>(Func<KvmVcpu, T> job)
    {
        if (Thread.CurrentThread == _thread)
            return job(Kvm);
        LockWitness.RequireNone("waits for a vCPU");
        VcpuJob<T> queued;
        lock (_lock)
        {
            if (!_started || _ended)
                return job(Kvm);
            queued = new VcpuJob<T>(job);
            _jobs.Enqueue(queued);
            Monitor.PulseAll(_lock);
            Kick();
        }
        return queued.Wait();
    }

    /// <summary>Asks it to stand still after the exit it is in; does not wait.</summary>
    internal void RequestPause()
    {
        lock (_lock)
        {
            _pauseWanted = true;
            Kick();
        }
    }

    /// <summary>Waits until it stands still, or has ended.</summary>
    internal void WaitPaused()
    {
        lock (_lock)
        {
            while (_started && !_paused && !_ended && _pauseWanted)
                Monitor.Wait(_lock);
        }
    }

    /// <summary>Lets it run again.</summary>
    internal void Resume()
    {
        lock (_lock)
        {
            _pauseWanted = false;
            Monitor.PulseAll(_lock);
        }
    }

    /// <summary>Asks it to end; does not wait.</summary>
    internal void RequestStop()
    {
        lock (_lock)
        {
            _stopWanted = true;
            Monitor.PulseAll(_lock);
            Kick();
        }
    }

    /// <summary>Waits for its thread to end, which <see cref="RequestStop"/> must have asked for. Not on its own thread.</summary>
    internal void Join()
    {
        if (_started)
            _thread.Join();
    }

    public void Dispose()
    {
        RequestStop();
        Join();
        Kvm.Dispose();
    }

    // Called with the lock held. Before the thread knows its id it has not yet looked at the requests either.
    private void Kick()
    {
        if (_threadId == 0 || _ended)
            return;
        Kvm.RequestImmediateExit();
        KickSignal.Send(_threadId);
    }

    private void Main()
    {
        VcpuEnd end;
        ThreadName.Publish();
        try
        {
            if (Affinity is { } cpus)
                ThreadAffinity.Pin(cpus, $"vCPU {Id}");
            ulong maskInRun = KickSignal.BlockInThisThread();
            Kvm.SetSignalMask(maskInRun);
            lock (_lock)
                _threadId = gettid();
            end = RunLoop();
        }
        catch (VmmException e)
        {
            end = new VcpuEnd(Id, VcpuEndReason.HostError, 0, e.Message);
        }
#pragma warning disable CA1031 // A mistake in a device ends this machine with a report, not the process with the terminal in raw mode.
        catch (Exception e)
        {
            end = new VcpuEnd(Id, VcpuEndReason.HostError, 0, $"vmm has a mistake, {e.GetType().Name}: {e.Message}");
        }
#pragma warning restore CA1031
        if (end.Reason != VcpuEndReason.Stopped)
            _observer.Ended(this, end);
        Finish();
    }

    private VcpuEnd RunLoop()
    {
        if (!ServeRequests())
            return new VcpuEnd(Id, VcpuEndReason.Stopped, 0, null);
        kvm_run* run = Kvm.Shared;
        int unexplained = 0;
        while (true)
        {
            int error = Kvm.Run();
            if (error == 0)
            {
                unexplained = 0;
                if (Dispatch(run))
                {
                    LockWitness.RequireNone("returns from an exit");
                    continue;
                }
                return Final(run);
            }
            if (error == EFAULT && Resolve(ref unexplained))
                continue;
            if (error is not (EINTR or EAGAIN))
                return new VcpuEnd(Id, VcpuEndReason.HostError, (ulong)error, $"KVM_RUN failed: {strerror(error)}");
            _counters.Kicks++;
            // In this order: a kick that comes after the clearing is seen either here or by the next KVM_RUN.
            Kvm.ClearImmediateExit();
            Interlocked.MemoryBarrier();
            KickSignal.Consume();
            if (!ServeRequests())
                return new VcpuEnd(Id, VcpuEndReason.Stopped, 0, null);
        }
    }

    /// <summary>The guest reached memory that the host cannot give: whether it is worth another try.</summary>
    private bool Resolve(ref int unexplained)
    {
        switch (Faults?.Resolve())
        {
            case GuestFaultAnswer.Resolved:
                _counters.Other++;
                unexplained = 0;
                return true;
            case GuestFaultAnswer.Unexplained when ++unexplained <= MaximumUnexplainedFaults:
                Thread.Yield();
                return true;
            default:
                // Such as a page in the middle of a file that its file system has no room for.
                return Faults?.GiveUp() == true;
        }
    }

    /// <summary>Serves one exit; false where it ends the vCPU. Allocates nothing. (Not private so that it can be measured by itself.)</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal bool Dispatch(kvm_run* run)
    {
        switch (run->exit_reason)
        {
            case KVM_EXIT_IO:
                _counters.PortIo++;
                Port(run);
                return true;
            case KVM_EXIT_MMIO:
                _counters.Mmio++;
                Mmio(run);
                return true;
            case KVM_EXIT_INTR or KVM_EXIT_IRQ_WINDOW_OPEN or KVM_EXIT_HLT or KVM_EXIT_DEBUG:
                _counters.Other++;
                return true;
            default:
                return false;
        }
    }

    private void Port(kvm_run* run)
    {
        kvm_run_io io = run->io;
        byte* data = Kvm.PortData(io.data_offset, (ulong)io.size * io.count);
        if (data == null)
            return;
        for (uint i = 0; i < io.count; i++, data += io.size)
        {
            // Safe: PortData has checked that the bytes lie in the shared area.
            var bytes = new Span<byte>(data, io.size);
            if (io.direction == KVM_EXIT_IO_OUT)
                _ports.Write(io.port, bytes);
            else
                _ports.Read(io.port, bytes);
        }
    }

    private void Mmio(kvm_run* run)
    {
        // Safe: KVM gives at most the 8 bytes of the field; more would be its error and is cut off.
        var bytes = new Span<byte>(&run->mmio.data, (int)Math.Min(run->mmio.len, 8));
        if (run->mmio.is_write != 0)
            _mmio.Write(run->mmio.phys_addr, bytes);
        else
            _mmio.Read(run->mmio.phys_addr, bytes);
    }

    private VcpuEnd Final(kvm_run* run)
    {
        _counters.Other++;
        switch (run->exit_reason)
        {
            case KVM_EXIT_SHUTDOWN:
                return new VcpuEnd(Id, VcpuEndReason.TripleFault, 0, null);
            case KVM_EXIT_SYSTEM_EVENT:
                return new VcpuEnd(Id, VcpuEndReason.SystemEvent, run->system_event.type, null);
            case KVM_EXIT_INTERNAL_ERROR:
                string what = run->@internal.suberror == KVM_INTERNAL_ERROR_EMULATION ? "an instruction that KVM cannot emulate" : $"suberror {run->@internal.suberror}";
                return new VcpuEnd(Id, VcpuEndReason.InternalError, run->@internal.suberror, what);
            case KVM_EXIT_FAIL_ENTRY:
                ulong reason = run->fail_entry.hardware_entry_failure_reason;
                return new VcpuEnd(Id, VcpuEndReason.FailedEntry, reason, $"the processor refused to enter the guest, hardware reason 0x{reason:x}");
            default:
                return new VcpuEnd(Id, VcpuEndReason.HostError, run->exit_reason, $"KVM exited for reason {run->exit_reason}, which is not handled");
        }
    }

    /// <summary>Runs the queued jobs and stands still while a pause is wanted; false when the vCPU is to end.</summary>
    private bool ServeRequests()
    {
        lock (_lock)
        {
            while (true)
            {
                while (_jobs.TryDequeue(out VcpuJob? job))
                {
                    Monitor.Exit(_lock);
                    try
                    {
                        job.Run(Kvm);
                    }
                    finally
                    {
                        Monitor.Enter(_lock);
                    }
                }
                if (_stopWanted)
                    return false;
                if (!_pauseWanted)
                {
                    _paused = false;
                    return true;
                }
                if (!_paused)
                {
                    _paused = true;
                    Monitor.PulseAll(_lock);
                }
                if (_jobs.Count == 0)
                    Monitor.Wait(_lock);
            }
        }
    }

    private void Finish()
    {
        lock (_lock)
        {
            _ended = true;
            Monitor.PulseAll(_lock);
            while (_jobs.TryDequeue(out VcpuJob? job))
                job.Run(Kvm);
        }
    }
}
