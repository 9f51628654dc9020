using Vmm.Core.Memory;
using Vmm.Virtio.Devices.Balloon;
using Vmm.Virtio.Devices.Block;
using Vmm.Virtio.Devices.Console;
using Vmm.Virtio.Devices.Mem;
using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.Devices.Pmem;
using Vmm.Virtio.Devices.Rng;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Hostile;

/// <summary>A device for the hostile driver.</summary>
/// <param name="Name">For the test's name.</param>
/// <param name="Make">Makes it on the loops of the scene; called some hundred times in a run, each after the last one was disposed of.</param>
/// <param name="TakesMemory">It may take any page out of the guest, rings included, so that its used rings prove nothing.</param>
public sealed record HostileTarget(string Name, Func<HostileScene, VirtioDevice> Make, bool TakesMemory = false);

/// <summary>The devices that the hostile driver is let loose on: one line each.</summary>
public static class HostileTargets
{
    // A region that outlives its devices, as RAM does.
    private static readonly GuestRam s_pluggable = GuestRam.Allocate([(0, 4096)], default, new AddressRange(1UL << 40, 512UL << 20));

    /// <summary>All of them.</summary>
    public static IReadOnlyList<HostileTarget> All { get; } =
    [
        new("echo", scene => new EchoDevice(scene.Loops)),
        new("echo 7", scene => new EchoDevice(scene.Loops, queues: 7, queueSize: 32)),
        new("rng", scene => new RngDevice(new RngConfig(), scene.Loops)),
        new("console", scene => new ConsoleDevice(new ConsoleConfig(), new MoodySink(), scene.Loops)),
        new("console with ports", scene => new ConsoleDevice(new ConsoleConfig(), new MoodySink(), scene.Loops, [new MoodyPort("a"), new MoodyPort("b")])),
        new("balloon", scene => new BalloonDevice(new BalloonConfig { DeflateOnOom = true, FreePageReporting = true }, scene.Loops), TakesMemory: true),
        new("block", scene => Block(scene, BlockEngineKind.Auto)),
        new("block sync", scene => Block(scene, BlockEngineKind.Sync)),
        new("net", scene => new NetDevice(new NetConfig { Id = "net0", NumQueues = 4 }, scene.Once("net", () => new MoodyBackend(2)), scene.Loops)),
        new("pmem", scene => new PmemDevice(
            PmemFile.Open(new PmemConfig(scene.FileOf("pmem", 2 << 20))), 1UL << 40, new Devices.Pmem.FakeSlots(), scene.Loops, flush: () => 0)),
        new("mem", scene => new MemDevice(new MemConfig(512UL << 20, 256UL << 20), s_pluggable.Hotplug!, scene.Loops)),
    ];

    /// <summary>Their names, for theories.</summary>
    public static TheoryData<string> Names => [.. All.Select(t => t.Name)];

    private static BlockDevice Block(HostileScene scene, BlockEngineKind engine)
    {
        var config = new BlockConfig { Id = "disk0", Path = scene.FileOf("disk0", 1 << 20), NumQueues = 2, Engine = engine };
        return new BlockDevice(config, scene.Once("disk0", () => DiskImage.Open(config)), scene.Loops);
    }
}
