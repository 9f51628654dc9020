namespace Vmm.Testing.Running;

/// <summary>What an attempt came to.</summary>
/// <param name="Verdict">The verdict.</param>
/// <param name="Title">As <see cref="TestResult.Title"/>.</param>
/// <param name="Message">As <see cref="TestResult.Message"/>.</param>
internal sealed record Outcome(Verdict Verdict, string Title, string Message)
{
    internal static readonly Outcome Passed = new(Verdict.Pass, "", "");
}

/// <summary>An attempt with all that is known about it.</summary>
internal sealed record AttemptRecord(Outcome Outcome, TimeSpan Duration)
{
    internal string Excerpt { get; init; } = "";

    internal IReadOnlyList<StepResult> Steps { get; init; } = [];

    internal IReadOnlyList<TriageAnswer> Answers { get; init; } = [];

    internal string? Vcpus { get; init; }
}
