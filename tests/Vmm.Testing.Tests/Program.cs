using Vmm.Testing.Tests.Reports;

namespace Vmm.Testing.Tests;

/// <summary>The entry point: a program with a display when a test starts it as one; otherwise the test runner loads the assembly.</summary>
internal static class Program
{
    private static int Main(string[] args) => args is ["live-host", ..] ? LiveHost.Run(args[1..]) : 0;
}
