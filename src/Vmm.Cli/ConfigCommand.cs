using Vmm.Machine.Configuration;

namespace Vmm.Cli;

/// <summary><c>vmm config</c>.</summary>
internal static class ConfigCommand
{
    internal static int Execute(VmConfig config)
    {
        Output.Write(VmConfigJson.Write(config));
        return ExitCodes.Success;
    }
}
