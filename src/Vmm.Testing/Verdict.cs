namespace Vmm.Testing;

/// <summary>What a boot test came to. Each has its own name in reports and its own exit code of <c>vmm test</c>.</summary>
public enum Verdict
{
    /// <summary>Everything that was expected came, and nothing that was forbidden.</summary>
    Pass,

    /// <summary>The guest ended before what was expected came, or in another way than expected.</summary>
    ExpectationNotMet,

    /// <summary>The console showed what was forbidden.</summary>
    ForbiddenText,

    /// <summary>The guest's kernel panicked: pvpanic said so, or its console did.</summary>
    Panic,

    /// <summary>The guest's kernel reported an oops, a BUG or a memory error (KASAN), and that was not allowed.</summary>
    Oops,

    /// <summary>The guest's kernel warned (WARNING, UBSAN, KCSAN, lockdep), and that was forbidden.</summary>
    Warning,

    /// <summary>A vCPU shut down: a fault while delivering a double fault.</summary>
    TripleFault,

    /// <summary>KVM could not go on with the guest.</summary>
    KvmError,

    /// <summary>The console was silent for longer than allowed, or the guest's kernel itself reported that something hangs.</summary>
    Hang,

    /// <summary>A step, or the whole test, took longer than allowed, though the console was not silent.</summary>
    Timeout,

    /// <summary>The guest rebooted more often than allowed.</summary>
    RebootLoop,

    /// <summary>The guest handed over a code of its own that says that it failed.</summary>
    GuestFailure,

    /// <summary>The host or vmm failed, so nothing is known about the guest.</summary>
    VmmError,

    /// <summary>Somebody ended the run before the test had its verdict.</summary>
    Interrupted,
}

/// <summary>The names and exit codes of verdicts. Stable: CI jobs depend on them.</summary>
public static class Verdicts
{
    private static readonly (Verdict Verdict, string Name, int ExitCode, string Meaning)[] s_all =
    [
        (Verdict.Pass, "pass", 0, "everything expected came, nothing forbidden did"),
        (Verdict.VmmError, "vmm-error", 1, "the host or vmm failed"),
        (Verdict.Panic, "panic", 4, "the guest panicked"),
        (Verdict.TripleFault, "triple-fault", 5, "triple fault"),
        (Verdict.KvmError, "kvm-error", 6, "KVM could not go on with the guest"),
        (Verdict.ExpectationNotMet, "expectation-not-met", 10, "the guest ended, and what was expected had not come"),
        (Verdict.ForbiddenText, "forbidden-text", 11, "the console showed forbidden text"),
        (Verdict.Oops, "oops", 12, "the guest's kernel reported an oops, BUG or memory error"),
        (Verdict.Warning, "warning", 13, "the guest's kernel warned, which was forbidden"),
        (Verdict.Hang, "hang", 14, "the console was silent for too long, or the kernel reported a hang"),
        (Verdict.Timeout, "timeout", 15, "a step or the test took too long"),
        (Verdict.RebootLoop, "reboot-loop", 16, "the guest rebooted too often"),
        (Verdict.GuestFailure, "guest-failure", 17, "the guest handed over a code that says that it failed"),
        (Verdict.Interrupted, "interrupted", 130, "a signal ended the run"),
    ];

    /// <summary>The exit code of a run whose tests failed in different ways.</summary>
    public const int DifferentFailures = 19;

    /// <summary>All verdicts with their exit codes and meanings, in the order of the codes; for help and documentation.</summary>
    public static IReadOnlyList<(Verdict Verdict, string Name, int ExitCode, string Meaning)> All => s_all;

    /// <summary>The name in reports, as in <c>triple-fault</c>.</summary>
    public static string Name(this Verdict verdict) => Find(verdict).Name;

    /// <summary>The exit code of a run with only this verdict.</summary>
    public static int ExitCode(this Verdict verdict) => Find(verdict).ExitCode;

    /// <summary>The exit code of a run: 0 where all passed, the verdict's where all failures have the same, else <see cref="DifferentFailures"/>.</summary>
    public static int ExitCode(IEnumerable<Verdict> verdicts)
    {
        ArgumentNullException.ThrowIfNull(verdicts);
        int code = 0;
        foreach (Verdict verdict in verdicts)
        {
            int own = verdict.ExitCode();
            if (own == 0 || own == code)
                continue;
            if (code != 0)
                return DifferentFailures;
            code = own;
        }
        return code;
    }

    private static (Verdict Verdict, string Name, int ExitCode, string Meaning) Find(Verdict verdict) =>
        Array.Find(s_all, one => one.Verdict == verdict);
}
