namespace Vmm.Cli;

/// <summary><c>vmm version</c> and <c>vmm --version</c>.</summary>
internal static class VersionCommand
{
    internal static int Execute()
    {
        Output.Write($"vmm {BuildInfo.Version}\n");
        return ExitCodes.Success;
    }
}
