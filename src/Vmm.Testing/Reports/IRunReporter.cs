namespace Vmm.Testing.Reports;

/// <summary>
/// Is told what a run of tests does. Calls come from several threads at a time; they return quickly and do not throw (a report that cannot
/// be written is said at the end, by <see cref="RunEnded"/>'s exception).
/// </summary>
public interface IRunReporter
{
    /// <summary>The run begins.</summary>
    /// <param name="tests">The names of all its tests, in their order.</param>
    /// <param name="jobs">How many run at once, at most.</param>
    void RunStarted(IReadOnlyList<string> tests, int jobs);

    /// <summary>An attempt begins.</summary>
    /// <param name="test">The test's name.</param>
    /// <param name="attempt">1 for the first.</param>
    void AttemptStarted(string test, int attempt);

    /// <summary>An attempt has come further: what it does now (<c>wait for /login: /</c>), or the last line of its console.</summary>
    /// <param name="test">The test's name.</param>
    /// <param name="what">One line; the guest's text in it may hold anything but control characters.</param>
    void Progress(string test, string what);

    /// <summary>An attempt failed, and there will be another.</summary>
    void AttemptFailed(string test, int attempt, AttemptResult result);

    /// <summary>A test has its verdict.</summary>
    void TestEnded(TestResult result);

    /// <summary>The run has ended; files are written now.</summary>
    /// <exception cref="Vmm.Core.VmmException">A report cannot be written.</exception>
    void RunEnded(RunSummary summary);
}

/// <summary>A whole run.</summary>
/// <param name="Results">Of all tests that ran, in the order of the run's list.</param>
/// <param name="Started">When the run began.</param>
/// <param name="Duration">How long it took.</param>
public sealed record RunSummary(IReadOnlyList<TestResult> Results, DateTimeOffset Started, TimeSpan Duration)
{
    /// <summary>How many have passed.</summary>
    public int Passed => Results.Count(result => result.Verdict == Verdict.Pass);

    /// <summary>How many have not.</summary>
    public int Failed => Results.Count - Passed;
}
