using System.Collections;

namespace Vmm.Machine.Configuration;

/// <summary>Which environment variables are configuration.</summary>
public static class EnvironmentNames
{
    /// <summary>What the name of each begins with.</summary>
    public const string Prefix = "VMM_";

    /// <summary>Names that begin so belong to the repository's own scripts, tests and benchmarks and never configure a machine.</summary>
    private static readonly string[] s_notOurs = ["VMM_REQUIRE_", "VMM_TEST_", "VMM_BENCH_", "VMM_SANDBOX_", "VMM_CACHE", "VMM_REFRESH", "VMM_BINARY"];

    /// <summary>Whether a variable of this name is configuration.</summary>
    public static bool IsConfiguration(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        if (!name.StartsWith(Prefix, StringComparison.OrdinalIgnoreCase))
            return false;
        foreach (string other in s_notOurs)
        {
            if (name.StartsWith(other, StringComparison.OrdinalIgnoreCase))
                return false;
        }

        return true;
    }

    /// <summary>Whether the environment has any.</summary>
    public static bool Any()
    {
        foreach (DictionaryEntry variable in Environment.GetEnvironmentVariables())
        {
            if (IsConfiguration((string)variable.Key))
                return true;
        }

        return false;
    }
}
