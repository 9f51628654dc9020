using Vmm.Core.Interop;

namespace Vmm.Machine;

/// <summary>The processor time of this process, all threads together.</summary>
internal static unsafe class ProcessClock
{
    internal static TimeSpan CpuTime()
    {
        timespec time;
        return LibC.clock_gettime(LibC.CLOCK_PROCESS_CPUTIME_ID, &time) == 0
            ? TimeSpan.FromSeconds(time.tv_sec) + TimeSpan.FromTicks(time.tv_nsec / 100)
            : TimeSpan.Zero;
    }
}
