using System.Collections.Concurrent;
using Vmm.Core;
using Vmm.Machine.Configuration;
using Vmm.Testing.Reports;
using Vmm.Testing.Specification;
using Vmm.Testing.Triage;

namespace Vmm.Testing.Running;

/// <summary>Runs tests: several at a time as far as the host has room, each as often as it may be tried.</summary>
public sealed class TestRun
{
    private readonly IReadOnlyList<TestCase> _tests;
    private readonly IRunReporter _reporter;
    private readonly int _jobs;
    private readonly string? _directory;
    private readonly TimeProvider _time;
    private readonly ConcurrentDictionary<string, Lazy<KernelSymbols>> _symbols = new();

    /// <summary>Makes a run.</summary>
    /// <param name="tests">What to run, in this order.</param>
    /// <param name="reporter">Told about it.</param>
    /// <param name="jobs">How many at once, at most; 0 for as many as the host has processors. Its memory bounds them too.</param>
    /// <param name="directory">Where each test's console log and configuration go; null for nowhere.</param>
    /// <param name="time">The clock for limits; null for the host's.</param>
    public TestRun(IReadOnlyList<TestCase> tests, IRunReporter reporter, int jobs = 1, string? directory = null, TimeProvider? time = null)
    {
        ArgumentNullException.ThrowIfNull(tests);
        ArgumentNullException.ThrowIfNull(reporter);
        ArgumentOutOfRangeException.ThrowIfNegative(jobs);
        (_tests, _reporter, _jobs, _directory, _time) = (tests, reporter, jobs == 0 ? Environment.ProcessorCount : jobs, directory, time ?? TimeProvider.System);
    }

    /// <summary>Runs all tests.</summary>
    /// <param name="cancel">Ends the run: tests that run are interrupted, others are not begun and not in the summary.</param>
    /// <exception cref="VmmException">Symbols cannot be read, or a report cannot be written.</exception>
    public async Task<RunSummary> RunAsync(CancellationToken cancel = default)
    {
        foreach (TestCase test in _tests)
            _ = Symbols(test);
        DateTimeOffset started = _time.GetUtcNow();
        long began = _time.GetTimestamp();
        _reporter.RunStarted([.. _tests.Select(test => test.Name)], _jobs);
        HostRoom room = HostRoom.OfHost(_jobs);
        var results = new TestResult?[_tests.Count];
        var running = new List<Task>();
        for (int i = 0; i < _tests.Count && !cancel.IsCancellationRequested; i++)
        {
            (int number, TestCase test) = (i, _tests[i]);
            IDisposable place = await room.EnterAsync(test.Config.Memory.Size, test.Config.Cpus.Boot).ConfigureAwait(false);
            if (cancel.IsCancellationRequested)
            {
                place.Dispose();
                break;
            }
            running.Add(Task.Run(
                async () =>
                {
                    using (place)
                        results[number] = await RunAsync(test, cancel).ConfigureAwait(false);
                },
                CancellationToken.None));
        }
        Task all = Task.WhenAll(running);
        await all.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        // What the others came to is reported, also where the files of one could not be written.
        var summary = new RunSummary([.. results.OfType<TestResult>()], started, _time.GetElapsedTime(began));
        _reporter.RunEnded(summary);
        await all.ConfigureAwait(false);
        return summary;
    }

    private async Task<TestResult> RunAsync(TestCase test, CancellationToken cancel)
    {
        DateTimeOffset started = _time.GetUtcNow();
        long began = _time.GetTimestamp();
        var attempts = new List<AttemptResult>();
        while (true)
        {
            _reporter.AttemptStarted(test.Name, attempts.Count + 1);
            using ConsoleLogWriter? log = _directory == null ? null : new ConsoleLogWriter(_directory, test.Name, attempts.Count + 1);
            AttemptRecord record = await new Attempt(test, log, Symbols(test), what => _reporter.Progress(test.Name, what), _time).RunAsync(cancel).ConfigureAwait(false);
            Outcome outcome = record.Outcome;
            var attempt = new AttemptResult(outcome.Verdict, outcome.Title, outcome.Message, record.Duration);
            attempts.Add(attempt);
            if (outcome.Verdict is not (Verdict.Pass or Verdict.Interrupted) && attempts.Count <= test.Spec.Retries)
            {
                _reporter.AttemptFailed(test.Name, attempts.Count, attempt);
                continue;
            }
            var result = new TestResult
            {
                Name = test.Name,
                Source = test.Source,
                Tags = test.Tags,
                Verdict = outcome.Verdict,
                Title = outcome.Title,
                Message = outcome.Message,
                Excerpt = record.Excerpt,
                Started = started,
                Duration = _time.GetElapsedTime(began),
                Attempts = attempts,
                Steps = record.Steps,
                Answers = record.Answers,
                Vcpus = record.Vcpus,
                ConsoleLog = log?.Path,
                Configuration = VmConfigJson.Write(test.Config),
                Repeat = test.Repeat,
            };
            Keep(result);
            _reporter.TestEnded(result);
            return result;
        }
    }

    /// <summary>The configuration beside the console log: with it <c>vmm run --config</c> starts the same machine.</summary>
    private static void Keep(TestResult result)
    {
        if (result.ConsoleLog is not { } log)
            return;
        try
        {
            File.WriteAllText(Path.ChangeExtension(Path.ChangeExtension(log, null), ".config.json"), result.Configuration);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw VmmException.Host($"Cannot write the configuration beside {log}: {e.Message.ReplaceLineEndings(" ")}", e);
        }
    }

    private KernelSymbols? Symbols(TestCase test) =>
        test.Spec.Symbols is not { } path ? null : _symbols.GetOrAdd(path, static path => new Lazy<KernelSymbols>(() => KernelSymbols.Load(path))).Value;
}
