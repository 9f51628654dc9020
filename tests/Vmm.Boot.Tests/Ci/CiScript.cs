using System.Diagnostics;
using Vmm.Sandbox;

namespace Vmm.Boot.Tests.Ci;

/// <summary>A script of ci/lib, run as a pipeline would, in a directory of its own that stands for the user's repository.</summary>
internal sealed class CiScript : IDisposable
{
    private static readonly string s_scripts = Path.Combine(SandboxImage.RepositoryDirectory, "ci", "lib");

    /// <summary>The user's repository.</summary>
    internal string Directory { get; } = System.IO.Directory.CreateTempSubdirectory("vmm ci ").FullName;

    /// <summary>Variables of the job, besides those of this process.</summary>
    internal Dictionary<string, string> Environment { get; } = new() { ["GITHUB_ACTIONS"] = "", ["GITHUB_OUTPUT"] = "", ["GITHUB_STEP_SUMMARY"] = "" };

    internal string this[string name] => Path.Combine(Directory, name);

    /// <summary>Writes a program.</summary>
    internal string Program(string name, string script)
    {
        string path = this[name];
        System.IO.Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        File.WriteAllText(path, "#!/bin/sh\n" + script + "\n");
        File.SetUnixFileMode(path, (UnixFileMode)0b111_101_101);
        return path;
    }

    internal async Task<(int Code, string Output, string Error)> Run(string script, params string[] arguments)
    {
        using Process process = Start(script, arguments);
        return await End(process, TimeSpan.FromMinutes(20));
    }

    internal Process Start(string script, params string[] arguments)
    {
        var start = new ProcessStartInfo(Path.Combine(s_scripts, script), arguments) { WorkingDirectory = Directory, RedirectStandardOutput = true, RedirectStandardError = true };
        foreach ((string name, string value) in Environment)
            start.Environment[name] = value;
        return Process.Start(start)!;
    }

    internal static async Task<(int Code, string Output, string Error)> End(Process process, TimeSpan limit)
    {
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Task<string> error = process.StandardError.ReadToEndAsync();
        using var cancel = new CancellationTokenSource(limit);
        try
        {
            await process.WaitForExitAsync(cancel.Token);
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
        }
        return (process.HasExited ? process.ExitCode : -1, await output, await error);
    }

    public void Dispose() => System.IO.Directory.Delete(Directory, recursive: true);
}
