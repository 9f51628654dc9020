using Vmm.Virtio.Devices.Net;
using Vmm.Virtio.Tests.Devices.Net;
using Vmm.Virtio.Devices.Balloon;
using Vmm.Virtio.Devices.Console;
using Vmm.Virtio.Devices.Rng;
using Vmm.Virtio.Tests.Devices.Console;
using Vmm.Core.Memory;
using Vmm.Virtio.Devices.Mem;
using Vmm.Virtio.Devices.Pmem;
using Vmm.Virtio.Tests.Driver;

namespace Vmm.Virtio.Tests.Hostile;

/// <summary>A device for the hostile driver.</summary>
/// <param name="Name">For the test's name.</param>
/// <param name="Make">Makes it on the loops of the scene; called some hundred times in a run, each after the last one was disposed of.</param>
public sealed record HostileTarget(string Name, Func<HostileScene, VirtioDevice> Make);

/// <summary>The devices that the hostile driver is let loose on: one line each.</summary>
public static class HostileTargets
{
    // A region that outlives its devices, as RAM does.
    private static readonly GuestRam s_pluggable = GuestRam.Allocate([(0, 4096)], default, new AddressRange(1UL << 40, 512UL << 20));

    /// <summary>All of them.</summary>
    public static IReadOnlyList<HostileTarget> All { get; } =
    [
        new("echo", scene => new EchoDevice(scene.Loops)),
        new("pmem", scene => new PmemDevice(
            PmemFile.Open(new PmemConfig(scene.FileOf("pmem", 2 << 20))), 1UL << 40, new Devices.Pmem.FakeSlots(), scene.Loops, flush: () => 0)),
        new("mem", scene => new MemDevice(new MemConfig(512UL << 20, 256UL << 20), s_pluggable.Hotplug!, scene.Loops)),
        new("echo 7", scene => new EchoDevice(scene.Loops, queues: 7, queueSize: 32)),
        new("net", scene => new NetDevice(new NetConfig { Id = "net0", NumQueues = 4 }, LoopbackBackend.Of(scene, 2), scene.Loops)),
        new("rng", scene => new RngDevice(new RngConfig(), scene.Loops)),
        new("console", scene =>
        {
            var console = new ConsoleDevice(new ConsoleConfig(), new FakeSink(1 << 16), scene.Loops);
            console.Receive(new byte[ConsoleDevice.InputCapacity]);
            return console;
        }),
        new("balloon", scene => new BalloonDevice(
            new BalloonConfig { Size = 1 << 20, FreePageReporting = true, StatsPollingInterval = TimeSpan.FromTicks(100) }, scene.Loops)),
    ];

    /// <summary>Their names, for theories.</summary>
    public static TheoryData<string> Names => [.. All.Select(t => t.Name)];
}
