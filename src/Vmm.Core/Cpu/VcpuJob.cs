using System.Runtime.ExceptionServices;
using Vmm.Core.Kvm;

namespace Vmm.Core.Cpu;

/// <summary>Something to do on a vCPU's thread.</summary>
internal abstract class VcpuJob
{
    /// <summary>Does it, on the vCPU's thread; never throws.</summary>
    internal abstract void Run(KvmVcpu vcpu);
}

/// <summary>A job with an answer.</summary>
internal sealed class VcpuJob<T>(Func<KvmVcpu, T> job) : VcpuJob
{
    private readonly object _lock = new();
    private bool _done;
    private T? _result;
    private ExceptionDispatchInfo? _error;

    internal override void Run(KvmVcpu vcpu)
    {
        T? result = default;
        ExceptionDispatchInfo? error = null;
#pragma warning disable CA1031 // Whatever the job throws belongs to whoever waits for it.
        try
        {
            result = job(vcpu);
        }
        catch (Exception e)
        {
            error = ExceptionDispatchInfo.Capture(e);
        }
#pragma warning restore CA1031
        lock (_lock)
        {
            _result = result;
            _error = error;
            _done = true;
            Monitor.PulseAll(_lock);
        }
    }

    /// <summary>Waits for the answer.</summary>
    internal T Wait()
    {
        lock (_lock)
        {
            while (!_done)
                Monitor.Wait(_lock);
        }
        _error?.Throw();
        return _result!;
    }
}
