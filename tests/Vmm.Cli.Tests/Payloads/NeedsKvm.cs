namespace Vmm.Tests.Payloads;

/// <summary>Tests that need /dev/kvm are skipped visibly where there is none; with VMM_REQUIRE_BOOT=1 they fail.</summary>
internal static class NeedsKvm
{
    private static bool Required { get; } = Environment.GetEnvironmentVariable("VMM_REQUIRE_BOOT") == "1";

    /// <summary>First line of each such test.</summary>
    internal static void Check() => Check(CanOpen(), "There is no /dev/kvm that can be opened.");

    /// <summary>The same for anything else that a test cannot do without.</summary>
    internal static void Check(bool there, string what)
    {
        Assert.True(there || !Required, "VMM_REQUIRE_BOOT=1, but: " + what);
        Skip.IfNot(there, what);
    }

    private static bool CanOpen()
    {
        try
        {
            using var kvm = new FileStream("/dev/kvm", FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite, 0);
            return true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }
}
