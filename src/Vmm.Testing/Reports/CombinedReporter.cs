using Vmm.Core;

namespace Vmm.Testing.Reports;

/// <summary>Tells several reporters everything. One that fails does not keep the others from their reports.</summary>
/// <param name="reporters">In the order in which they are told; disposed of with this one, where they can be.</param>
public sealed class CombinedReporter(IReadOnlyList<IRunReporter> reporters) : IRunReporter, IDisposable
{
    /// <inheritdoc/>
    public void RunStarted(IReadOnlyList<string> tests, int jobs)
    {
        foreach (IRunReporter reporter in reporters)
            reporter.RunStarted(tests, jobs);
    }

    /// <inheritdoc/>
    public void AttemptStarted(string test, int attempt)
    {
        foreach (IRunReporter reporter in reporters)
            reporter.AttemptStarted(test, attempt);
    }

    /// <inheritdoc/>
    public void Progress(string test, string what)
    {
        foreach (IRunReporter reporter in reporters)
            reporter.Progress(test, what);
    }

    /// <inheritdoc/>
    public void AttemptFailed(string test, int attempt, AttemptResult result)
    {
        foreach (IRunReporter reporter in reporters)
            reporter.AttemptFailed(test, attempt, result);
    }

    /// <inheritdoc/>
    public void TestEnded(TestResult result)
    {
        foreach (IRunReporter reporter in reporters)
            reporter.TestEnded(result);
    }

    /// <inheritdoc/>
    /// <exception cref="VmmException">At least one report could not be written; the others are. Has what each of them said.</exception>
    public void RunEnded(RunSummary summary)
    {
        var errors = new List<Exception>();
        foreach (IRunReporter reporter in reporters)
        {
            try
            {
                reporter.RunEnded(summary);
            }
            catch (Exception e) when (e is not OutOfMemoryException)
            {
                // Even a mistake in a reporter is no reason to lose the other reports; it is told below.
                errors.Add(e);
            }
        }

        if (errors is [VmmException only])
            throw only;
        if (errors.Count > 0)
            throw VmmException.Host(string.Join(" ", errors.Select(Sentence)), new AggregateException(errors));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (IRunReporter reporter in reporters)
            (reporter as IDisposable)?.Dispose();
    }

    private static string Sentence(Exception e) => e is VmmException ? e.Message : $"A report could not be written: {e.GetType().Name}: {e.Message}";
}
