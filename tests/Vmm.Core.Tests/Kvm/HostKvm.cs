namespace Vmm.Core.Tests.Kvm;

/// <summary>Tests that need /dev/kvm are skipped visibly where there is none; with VMM_REQUIRE_BOOT=1 they fail.</summary>
internal static class HostKvm
{
    public static bool Required { get; } = Environment.GetEnvironmentVariable("VMM_REQUIRE_BOOT") == "1";

    /// <summary>First line of each such test.</summary>
    public static void Needed()
    {
        bool there = File.Exists("/dev/kvm");
        Assert.True(there || !Required, "VMM_REQUIRE_BOOT=1, and there is no /dev/kvm.");
        Skip.IfNot(there, "There is no /dev/kvm.");
    }
}

/// <summary>Tests that count threads, file descriptors or mappings of the whole process, or that load it: one at a time.</summary>
[CollectionDefinition(nameof(KvmCollection), DisableParallelization = true)]
public sealed class KvmCollection;
