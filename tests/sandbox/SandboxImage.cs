using System.Diagnostics;

namespace Vmm.Sandbox;

/// <summary>Finds this repository and has its shell recipes make images.</summary>
public static class SandboxImage
{
    /// <summary>The repository's root directory: the nearest one above the program or the working directory that has Vmm.sln.</summary>
    /// <exception cref="SandboxException">There is none.</exception>
    public static string RepositoryDirectory { get; } = FindRepository();

    /// <summary>Builds a sandbox image, or finds it in the cache. Returns its directory.</summary>
    /// <exception cref="SandboxException">The recipe failed.</exception>
    public static Task<string> BuildAsync(SandboxFlavour flavour, CancellationToken cancellation = default) =>
        RunRecipeAsync("tests/sandbox/build", flavour == SandboxFlavour.Debian ? "debian" : "light", cancellation);

    /// <summary>Builds a guest image, or finds it in the cache. Returns its directory.</summary>
    /// <param name="name">A recipe in guest-images/recipes, e.g. "debian-12".</param>
    /// <param name="cancellation">Stops the recipe.</param>
    /// <exception cref="SandboxException">The recipe failed.</exception>
    public static Task<string> BuildGuestAsync(string name, CancellationToken cancellation = default) =>
        RunRecipeAsync("guest-images/build", name, cancellation);

    private static async Task<string> RunRecipeAsync(string script, string argument, CancellationToken cancellation)
    {
        using var process = new Process();
        process.StartInfo = new ProcessStartInfo("/bin/sh")
        {
            ArgumentList = { Path.Combine(RepositoryDirectory, script), argument },
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            RedirectStandardInput = true,
        };
        process.Start();
        process.StandardInput.Close();
        try
        {
            var errors = process.StandardError.ReadToEndAsync(cancellation);
            var output = await process.StandardOutput.ReadToEndAsync(cancellation).ConfigureAwait(false);
            var log = await errors.ConfigureAwait(false);
            await process.WaitForExitAsync(cancellation).ConfigureAwait(false);
            if (process.ExitCode != 0)
                throw new SandboxException($"'{script} {argument}' failed with exit code {process.ExitCode}:\n{log.TrimEnd()}");
            return output.Trim().Split('\n')[^1];
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            throw;
        }
    }

    private static string FindRepository()
    {
        foreach (var start in new[] { AppContext.BaseDirectory, Directory.GetCurrentDirectory() })
        {
            for (var directory = new DirectoryInfo(start); directory is not null; directory = directory.Parent)
            {
                if (File.Exists(Path.Combine(directory.FullName, "Vmm.sln")))
                    return directory.FullName;
            }
        }
        throw new SandboxException($"Neither {AppContext.BaseDirectory} nor {Directory.GetCurrentDirectory()} lies in a checkout of this repository (no Vmm.sln above), so the sandbox's recipes cannot be found.");
    }
}
