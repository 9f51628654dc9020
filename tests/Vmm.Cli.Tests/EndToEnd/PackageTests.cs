using System.Diagnostics;
using Vmm.Tests.Payloads;

namespace Vmm.Cli.Tests.EndToEnd;

/// <summary>The NuGet packages, and the example that is made of them: as somebody does who has only those.</summary>
public sealed class PackageTests : IDisposable
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(15);

    private readonly VmmProgram _vmm = new();

    public PackageTests() => NeedsKvm.Check();

    public void Dispose() => _vmm.Dispose();

    [SkippableFact]
    public async Task The_example_boots_a_guest_in_a_test()
    {
        string repository = Repository();
        (int code, string output) = await Run(repository, "scripts/pack");
        Assert.True(code == 0, output);
        // Beside the packages, as its sources are named from there; whatever it builds is gone with the test.
        string example = Path.Combine(_vmm.Folder, "examples", "boot-test");
        Directory.CreateDirectory(example);
        foreach (string file in Directory.GetFiles(Path.Combine(repository, "examples", "boot-test")))
            File.Copy(file, Path.Combine(example, Path.GetFileName(file)));
        File.WriteAllText(Path.Combine(example, "nuget.config"), File.ReadAllText(Path.Combine(example, "nuget.config"))
            .Replace("../../artifacts", Path.Combine(repository, "artifacts"), StringComparison.Ordinal));
        string kernel = _vmm.Make("kernel", GuestProgram.Elf(a => { a.Print("login: "); a.Hang(); }));
        (code, output) = await Run(example, $"KERNEL={kernel} EXPECT='login:' dotnet test --nologo");
        Assert.True(code == 0, output);
        Assert.Contains("Passed:     2", output, StringComparison.Ordinal);
    }

    private static string Repository()
    {
        string directory = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(directory, "Vmm.sln")))
            directory = Path.GetDirectoryName(directory)!;
        return directory;
    }

    private static async Task<(int Code, string Output)> Run(string directory, string line)
    {
        // What the runner of these tests has set for itself is not for the one in there.
        using var process = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", $"unset MSBUILDSDKSPATH MSBuildSDKsPath MSBUILD_EXE_PATH MSBuildExtensionsPath; {line} 2>&1"])
        {
            WorkingDirectory = directory,
            RedirectStandardOutput = true,
        })!;
        using var limit = new CancellationTokenSource(s_limit);
        string output = await process.StandardOutput.ReadToEndAsync(limit.Token);
        await process.WaitForExitAsync(limit.Token);
        return (process.ExitCode, output);
    }
}
