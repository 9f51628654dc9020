namespace Vmm.Sandbox.Tests;

/// <summary>One sandbox for all tests of a class.</summary>
public sealed class SandboxFixture : IAsyncLifetime
{
    public Sandbox Sandbox { get; private set; } = null!;

    public async Task InitializeAsync() => Sandbox = await Sandbox.StartAsync(new SandboxOptions { MemoryMiB = 2048 });

    public async Task DisposeAsync() => await Sandbox.DisposeAsync();
}
