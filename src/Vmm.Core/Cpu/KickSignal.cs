using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Core.Cpu;

/// <summary>
/// The signal that takes a vCPU out of KVM_RUN. No handler ever runs for it: managed code must not run in one. vCPU threads block
/// it, KVM_RUN alone unblocks it (KVM_SET_SIGNAL_MASK) and returns EINTR while it is pending; then it is consumed by hand.
/// </summary>
internal static unsafe class KickSignal
{
    // Clear of the first real-time signals, which runtimes and debuggers use.
    private static readonly int Number = __libc_current_sigrtmin() + 6;

    // Milliseconds.
    private const int MostTries = 100;

    /// <summary>Blocks it in the calling thread, and returns the thread's mask without it: what is to be blocked inside KVM_RUN.</summary>
    internal static ulong BlockInThisThread()
    {
        sigset_t set, old;
        _ = sigemptyset(&set);
        _ = sigaddset(&set, Number);
        if (pthread_sigmask(SIG_BLOCK, &set, &old) != 0)
            throw VmmException.Host("Cannot block the kick signal of a vCPU thread.");
        return old[0] & ~(1UL << (Number - 1));
    }

    /// <summary>Sends it to a thread of this process.</summary>
    internal static void Send(int thread)
    {
        // A user's queued signals are limited (RLIMIT_SIGPENDING, also by what other programs have left pending). They are taken out soon, mostly.
        for (int tries = 0; tgkill(getpid(), thread, Number) != 0 && errno == EAGAIN && tries < MostTries; tries++)
            Thread.Sleep(1);
    }

    /// <summary>Consumes every pending one; does not wait.</summary>
    internal static void Consume()
    {
        sigset_t set;
        _ = sigemptyset(&set);
        _ = sigaddset(&set, Number);
        timespec none = default;
        while (sigtimedwait(&set, null, &none) > 0)
        {
        }
    }
}
