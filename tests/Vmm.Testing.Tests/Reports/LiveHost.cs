using Vmm.Machine.Console;

namespace Vmm.Testing.Tests.Reports;

/// <summary>
/// What <c>vmm test</c> does with a terminal, without machines. <c>end</c> runs to the end; <c>throw</c> ends by an exception of another
/// thread; <c>wait</c> goes on until a signal ends it; <c>stuck</c> does too, and does not heed the first one.
/// </summary>
internal static class LiveHost
{
    internal static int Run(string[] args)
    {
        int code = 0;
        using var ended = new ManualResetEventSlim();
        using var signals = new TerminationSignals(number =>
        {
            code = 128 + number;
            if (args[0] != "stuck")
                ended.Set();
        });
        using LiveReporter? reporter = LiveReporter.ForTerminal(1);
        if (reporter is null)
        {
            System.Console.Out.WriteLine("no terminal");
            return 3;
        }

        RunSummary summary = Samples.Summary(Samples.Passed("first"), Samples.Panicked("second"));
        reporter.RunStarted(["first", "second"], 2);
        reporter.AttemptStarted("first", 1);
        reporter.AttemptStarted("second", 1);
        reporter.Progress("second", "wait for /login: /");
        reporter.TestEnded(summary.Results[0]);
        if (args[0] == "throw")
            new Thread(() => Throw()) { IsBackground = true }.Start();
        if (args[0] != "end")
            ended.Wait();
        reporter.TestEnded(summary.Results[1]);
        reporter.RunEnded(summary);
        return code;
    }

    private static void Throw()
    {
        Thread.Sleep(600);
        throw new InvalidOperationException("on purpose");
    }
}
