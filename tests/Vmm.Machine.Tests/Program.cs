namespace Vmm.Machine.Tests;

/// <summary>The entry point: a program with a terminal when a test starts it as one; otherwise the test runner loads the assembly.</summary>
internal static class Program
{
    private static int Main(string[] args) => args is ["console-host", ..] ? Console.ConsoleHost.Run(args[1..]) : 0;
}
