namespace Vmm.Testing;

/// <summary>What became of one test (one variant of a matrix), with everything that a report may want to show.</summary>
public sealed record TestResult
{
    /// <summary>Its name, unique in the run; a variant's has its values, as in <c>boots[kernel=6.1,cpus=2]</c>.</summary>
    public required string Name { get; init; }

    /// <summary>The file it was read from, or <c>command line</c>.</summary>
    public required string Source { get; init; }

    /// <summary>Its tags.</summary>
    public IReadOnlyList<string> Tags { get; init; } = [];

    /// <summary>The verdict of the last attempt.</summary>
    public required Verdict Verdict { get; init; }

    /// <summary>
    /// A line that stays the same from run to run where the cause is the same: the crash's title as syzkaller would give it, or the
    /// expectation that was not met. Empty where it passed.
    /// </summary>
    public string Title { get; init; } = "";

    /// <summary>A sentence for people: what happened, with numbers. Empty where it passed.</summary>
    public string Message { get; init; } = "";

    /// <summary>The crash's report, or the last console lines, as the guest wrote them (control characters made visible). May be empty.</summary>
    public string Excerpt { get; init; } = "";

    /// <summary>When the first attempt started.</summary>
    public required DateTimeOffset Started { get; init; }

    /// <summary>From the start of the first attempt to the end of the last.</summary>
    public required TimeSpan Duration { get; init; }

    /// <summary>Every attempt, in order; more than one where it was retried.</summary>
    public IReadOnlyList<AttemptResult> Attempts { get; init; } = [];

    /// <summary>What the last attempt did, step by step.</summary>
    public IReadOnlyList<StepResult> Steps { get; init; } = [];

    /// <summary>What was asked of the guest after its crash (a debugger's commands) and what it answered, in order.</summary>
    public IReadOnlyList<TriageAnswer> Answers { get; init; } = [];

    /// <summary>Each vCPU's registers and code where it stood, where the guest failed; null otherwise.</summary>
    public string? Vcpus { get; init; }

    /// <summary>The file with the whole console of the last attempt, every line with its time; null where none was kept.</summary>
    public string? ConsoleLog { get; init; }

    /// <summary>The machine's effective configuration, in the JSON that <c>--config</c> takes.</summary>
    public required string Configuration { get; init; }

    /// <summary>The command that runs just this test again, ready for a shell.</summary>
    public required string Repeat { get; init; }

    /// <summary>Whether it passed, but not at once.</summary>
    public bool IsFlaky => Verdict == Verdict.Pass && Attempts.Count > 1;
}

/// <summary>One attempt at a test.</summary>
/// <param name="Verdict">What it came to.</param>
/// <param name="Title">As <see cref="TestResult.Title"/>.</param>
/// <param name="Message">As <see cref="TestResult.Message"/>.</param>
/// <param name="Duration">From the making of the machine to its end.</param>
public sealed record AttemptResult(Verdict Verdict, string Title, string Message, TimeSpan Duration);

/// <summary>One step of a test.</summary>
/// <param name="Description">As people would say it: <c>wait for /login: /</c>.</param>
/// <param name="Done">Whether it was done; the first that was not is where the test ended.</param>
/// <param name="At">When it was done or given up, since the attempt's start.</param>
public sealed record StepResult(string Description, bool Done, TimeSpan At);

/// <summary>A question to a crashed guest, and its answer.</summary>
/// <param name="Command">What was typed.</param>
/// <param name="Text">What came back, without the echo and the next prompt; lines end in newlines.</param>
public sealed record TriageAnswer(string Command, string Text);
