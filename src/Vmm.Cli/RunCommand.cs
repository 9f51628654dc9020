using Vmm.Core;
using Vmm.Machine.Configuration;

namespace Vmm.Cli;

/// <summary><c>vmm run</c>.</summary>
internal static class RunCommand
{
    /// <summary>Makes the machine, runs it to its end, and returns the exit code that says how it ended.</summary>
    /// <exception cref="VmmException">The machine cannot be made or run.</exception>
    internal static int Execute(VmConfig config)
    {
        config.CheckRunnable();
        throw VmmException.Host("this build has no machine to run yet; only vmm config, check and completion work.");
    }
}
