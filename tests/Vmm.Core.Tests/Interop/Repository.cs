namespace Vmm.Core.Tests;

/// <summary>Where the source tree is: tests read it and compile small C programs.</summary>
internal static class Repository
{
    /// <summary>The folder that holds Vmm.sln.</summary>
    public static string Root { get; } = Find();

    private static string Find()
    {
        for (DirectoryInfo? at = new(AppContext.BaseDirectory); at != null; at = at.Parent)
        {
            if (File.Exists(Path.Combine(at.FullName, "Vmm.sln")))
                return at.FullName;
        }
        throw new InvalidOperationException($"Vmm.sln is in no folder above {AppContext.BaseDirectory}.");
    }
}
