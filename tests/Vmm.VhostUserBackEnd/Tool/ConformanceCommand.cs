using System.Diagnostics;
using Vmm.VhostUserBackEnd.Conformance;

namespace Vmm.VhostUserBackEnd.Tool;

/// <summary>Runs scenarios against a front-end and prints a line for each.</summary>
internal static class ConformanceCommand
{
    internal static int Run(ToolOptions options)
    {
        if (options.Has("list"))
        {
            foreach (Scenario scenario in Scenarios.All)
                Console.Out.WriteLine($"{scenario.Name} [{scenario.Rule}]: the back-end {scenario.BackEndDoes}; the front-end must {scenario.FrontEndMust}.");
            return 0;
        }
        string[] names = [.. options.Values("scenario")];
        string? rule = options.Value("rule");
        Scenario[] chosen = [.. Scenarios.All.Where(scenario => (names.Length == 0 || names.Contains(scenario.Name)) && (rule == null || scenario.Rule == rule))];
        string socket = options.Socket;
        string? command = options.Value("on-start");
        Process? frontEnd = null;
        var settings = new ConformanceOptions
        {
            Socket = socket,
            Client = options.Has("client"),
            ComesBack = options.Has("comes-back"),
            StartTimeout = TimeSpan.FromSeconds(options.Number("timeout", 60)),
            SilenceTimeout = TimeSpan.FromSeconds(options.Number("silence", 15)),
            Trace = options.Has("trace") ? entry => Console.Error.WriteLine(entry) : null,
            OnListening = command == null ? null : () => frontEnd = Start(command, socket),
            OnEnd = command == null ? null : () => Stop(ref frontEnd),
            Died = command == null ? null : () => frontEnd is { HasExited: true, ExitCode: > 128 } ? $"its exit code is {frontEnd.ExitCode}" : null,
            Device = options.Value("device") == null ? () => new ShmemDevice(Scenarios.RegionSizes) : options.MakeDevice,
        };
        bool verbose = options.Has("verbose");
        if (options.Value("device") == null)
            options.RejectUnused();
        int failed = 0, passed = 0, skipped = 0;
        foreach (Scenario scenario in chosen)
        {
            ScenarioResult result = ConformanceRunner.Run(scenario, settings);
            _ = result.Outcome switch { ScenarioOutcome.Pass => passed++, ScenarioOutcome.Fail => failed++, _ => skipped++ };
            Console.Out.WriteLine($"{result.Outcome.ToString().ToUpperInvariant()} {scenario.Name}{(result.Why.Length == 0 ? "" : $": {result.Why}")}");
            if (result.Outcome == ScenarioOutcome.Fail)
            {
                Console.Out.WriteLine($"     the back-end {scenario.BackEndDoes}; the front-end must {scenario.FrontEndMust}");
                if (verbose)
                    Console.Out.WriteLine(result.Transcript);
            }
            Console.Out.Flush();
        }
        Console.Out.WriteLine($"{passed} passed, {failed} failed, {skipped} skipped");
        return failed == 0 && passed > 0 ? 0 : 1;
    }

    private static Process Start(string command, string socket)
    {
        var start = new ProcessStartInfo("/bin/sh", ["-c", $"exec {command}"]) { RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true };
        start.Environment["VHOST_USER_SOCKET"] = socket;
        var process = Process.Start(start)!;
        // Nobody reads it, and it must not stop for that.
        process.OutputDataReceived += (_, _) => { };
        process.ErrorDataReceived += (_, _) => { };
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        return process;
    }

    /// <summary>What had died before is told by its exit code; what is ended here is not asked any more.</summary>
    private static void Stop(ref Process? process)
    {
        if (process is not { HasExited: false })
            return;
        Process running = process;
        process = null;
        running.Kill(entireProcessTree: true);
        running.WaitForExit();
        running.Dispose();
    }
}
