using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Hostile;

/// <summary>A device for the hostile driver.</summary>
/// <param name="Name">For the test's name.</param>
/// <param name="Make">Makes it on the loops of the scene; called some hundred times in a run, each after the last one was disposed of.</param>
public sealed record HostileTarget(string Name, Func<HostileScene, VirtioDevice> Make);

/// <summary>The devices that the hostile driver is let loose on: one line each.</summary>
public static class HostileTargets
{
    /// <summary>All of them.</summary>
    public static IReadOnlyList<HostileTarget> All { get; } =
    [
        new("echo", scene => new EchoDevice(scene.Loops)),
        new("echo 7", scene => new EchoDevice(scene.Loops, queues: 7, queueSize: 32)),
    ];

    /// <summary>Their names, for theories.</summary>
    public static TheoryData<string> Names => [.. All.Select(t => t.Name)];
}
