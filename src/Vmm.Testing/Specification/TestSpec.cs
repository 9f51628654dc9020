using System.Text.RegularExpressions;
using Vmm.Core;
using Vmm.Machine;
using Vmm.Machine.Configuration;

namespace Vmm.Testing.Specification;

/// <summary>What a guest's kernel may report about itself that fails a test, besides panics, which always do.</summary>
[Flags]
public enum Failures
{
    /// <summary>Nothing else.</summary>
    None = 0,

    /// <summary>An oops, BUG, KASAN report.</summary>
    Oops = 1,

    /// <summary>A WARNING, UBSAN, KCSAN or lockdep report, witness(4).</summary>
    Warning = 2,

    /// <summary>A hung task, RCU stall, soft or hard lockup.</summary>
    Hang = 4,
}

/// <summary>What a test expects of its guest, and how long it may take; without the machine.</summary>
public sealed record TestSpec
{
    /// <summary>How long the whole test may take without being told: 60 seconds.</summary>
    public static readonly TimeSpan DefaultTimeout = TimeSpan.FromSeconds(60);

    /// <summary>The steps, in order. <c>expect</c> patterns are steps that wait, after those that were given as steps.</summary>
    public IReadOnlyList<TestStep> Steps { get; init; } = [];

    /// <summary>What no line of the console may match, from the start to the verdict.</summary>
    public IReadOnlyList<Regex> Forbid { get; init; } = [];

    /// <summary>
    /// How the guest is to end after the last step; empty where the test passes with the last step, and the machine is ended then. A test
    /// without steps waits for the guest to power off.
    /// </summary>
    public IReadOnlyList<VmExitReason> Exits { get; init; } = [];

    /// <summary>The code that the guest is to hand over; null where any failure code fails the test and none is waited for.</summary>
    public uint? Code { get; init; }

    /// <summary>How long an attempt may take.</summary>
    public TimeSpan Timeout { get; init; } = DefaultTimeout;

    /// <summary>How long each step that waits may take that does not say it itself; null for as long as the test.</summary>
    public TimeSpan? StepTimeout { get; init; }

    /// <summary>How long the console may be silent; null for as long as the test.</summary>
    public TimeSpan? Hang { get; init; }

    /// <summary>How often to try again when it fails: 0 to 100.</summary>
    public int Retries { get; init; }

    /// <summary>How often the guest may reboot and start anew; 0 where a reboot ends it.</summary>
    public int MaxReboots { get; init; }

    /// <summary>Which reports of the guest's kernel fail the test.</summary>
    public Failures FailOn { get; init; } = Failures.Oops | Failures.Hang;

    /// <summary>Titles of reports that do not count, panics included.</summary>
    public IReadOnlyList<Regex> Ignore { get; init; } = [];

    /// <summary>A System.map or vmlinux with the kernel's symbols, for the report of a crash; null for none.</summary>
    public string? Symbols { get; init; }

    /// <summary>Whether a guest that hangs gets non-maskable interrupts, and its kernel is told to answer them with a panic.</summary>
    public bool NmiOnHang { get; init; } = true;

    private static readonly (string Word, VmExitReason Reason)[] s_exits =
    [
        ("poweroff", VmExitReason.PowerOff), ("reboot", VmExitReason.Reboot), ("panic", VmExitReason.Panic),
        ("triple-fault", VmExitReason.TripleFault), ("code", VmExitReason.GuestExit),
    ];

    private static readonly (string Word, Failures Failure)[] s_failures =
        [("none", Failures.None), ("oops", Failures.Oops), ("warning", Failures.Warning), ("hang", Failures.Hang)];

    /// <summary>Reads a way to end: poweroff, reboot, panic, triple-fault or code.</summary>
    /// <exception cref="VmmException">It is none of these.</exception>
    public static VmExitReason ParseExit(string origin, string word) => Choose(origin, word, s_exits);

    /// <summary>The word for a way to end.</summary>
    public static string Name(VmExitReason reason) => Array.Find(s_exits, one => one.Reason == reason).Word ?? reason.ToString();

    /// <summary>Reads a list of reports that fail a test: none, oops, warning, hang.</summary>
    /// <exception cref="VmmException">One of them is none.</exception>
    public static Failures ParseFailures(string origin, IEnumerable<string> words)
    {
        ArgumentNullException.ThrowIfNull(words);
        Failures all = Failures.None;
        foreach (string word in words)
            all |= Choose(origin, word, s_failures);
        return all;
    }

    private static T Choose<T>(string origin, string word, (string Word, T Value)[] known)
    {
        int at = Array.FindIndex(known, one => one.Word == word);
        return at >= 0 ? known[at].Value
            : throw VmmException.Configuration($"{origin}: there is no {OptionGrammar.Show(word)}; there are {string.Join(", ", known.Select(one => one.Word))}.");
    }
}

/// <summary>One test, ready to be run: one variant of its matrix.</summary>
/// <param name="Name">Unique in the run.</param>
/// <param name="Source">The file it was read from, or <c>command line</c>.</param>
/// <param name="Tags">What it can be chosen by.</param>
/// <param name="Spec">What is expected.</param>
/// <param name="Config">The machine.</param>
/// <param name="Repeat">The command that runs just this test again.</param>
public sealed record TestCase(string Name, string Source, IReadOnlyList<string> Tags, TestSpec Spec, VmConfig Config, string Repeat);
