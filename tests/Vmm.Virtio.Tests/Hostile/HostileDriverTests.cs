using System.Globalization;
using FsCheck;
using FsCheck.Fluent;
using Vmm.Virtio.Tests.Driver;
using Xunit.Abstractions;

namespace Vmm.Virtio.Tests.Hostile;

/// <summary>
/// A hostile driver against every device: rings, requests, configuration accesses and starts, stops and resets that FsCheck makes. No
/// exception, no step over a second, nothing outside guest RAM (its guard pages would end the process), nothing that grows, and a
/// neighbour on the same loops answers all along.
/// </summary>
/// <remarks>
/// VMM_TEST_HOSTILE_CASES: cases per device (1,000,000 for a soak, see scripts/soak). VMM_TEST_HOSTILE_SEED: the seed; a failure names it.
/// </remarks>
[Collection(nameof(HostileDriverTests))]
public sealed class HostileDriverTests(ITestOutputHelper output)
{
    private const int DefaultCases = 400;
    private const ulong DefaultSeed = 20260101;
    private const long HeapGrowth = 4 << 20;
    private const long ResidentGrowth = 96 << 20;
    private const long BytesPerCase = 256 << 10;

    [Theory]
    [MemberData(nameof(HostileTargets.Names), MemberType = typeof(HostileTargets))]
    public void A_device_survives_any_driver(string name)
    {
        HostileTarget target = HostileTargets.All.Single(t => t.Name == name);
        int cases = (int)Setting("VMM_TEST_HOSTILE_CASES", DefaultCases);
        ulong seed = Setting("VMM_TEST_HOSTILE_SEED", DefaultSeed);
        output.WriteLine($"{name}: VMM_TEST_HOSTILE_CASES={cases} VMM_TEST_HOSTILE_SEED={seed}");
        using var scene = new HostileScene();
        using var neighbour = new EchoDevice(scene.Loops);
        using var driver = new GuestDriver(neighbour, RingFeatures.Of(14));
        driver.Start();
        using var run = new HostileRun(target, scene);
        Config config = Config.QuickThrowOnFailure.WithStartSize(2).WithEndSize(60).WithReplay(seed, 0x9e37_79b9_7f4a_7c15);
        int warmUp = Math.Clamp(cases / 4, 50, 2000);

        // Whatever is made once is made now.
        Attack(config.WithMaxTest(warmUp), run, driver);
        (long Heap, long Resident, int Descriptors) before = Usage();
        long loops = scene.AllocatedByLoops();
        Attack(config.WithMaxTest(cases), run, driver);
        long allocated = scene.AllocatedByLoops() - loops;
        (long Heap, long Resident, int Descriptors) after = Usage();

        output.WriteLine($"{cases} cases: {run.Host.Broken} broken devices, {run.Host.Interrupts} interrupts, " +
            $"{allocated / cases} bytes allocated by the loops for each; heap {after.Heap - before.Heap:+0;-0;0} bytes, " +
            $"resident {(after.Resident - before.Resident) >> 10:+0;-0;0} KiB, descriptors {after.Descriptors - before.Descriptors:+0;-0;0}");
        Assert.True(after.Heap - before.Heap < HeapGrowth, $"The heap grew by {after.Heap - before.Heap} bytes.");
        Assert.True(after.Resident - before.Resident < ResidentGrowth, $"The process grew by {after.Resident - before.Resident} bytes.");
        Assert.True(allocated / cases < BytesPerCase, $"The loops allocated {allocated / cases} bytes for each case.");
        Assert.Equal(before.Descriptors, after.Descriptors);
        Assert.True(run.Host.Broken > 0, "Not one ring was refused: the attack does not reach the queues.");
        Assert.True(run.Host.Interrupts > 0, "Not one interrupt came: the attack does not reach the device.");
        Assert.Empty(driver.Host.ResetReasons);
    }

    private static void Attack(Config config, HostileRun run, GuestDriver neighbour)
    {
        int done = 0;
        byte[] request = new byte[64];
        Check.One(config, Prop.ForAll(HostileStep.Cases, steps =>
        {
            run.Case(steps);
            if (++done % 32 != 0)
                return;
            BitConverter.TryWriteBytes(request, done);
            Assert.Equal(request, neighbour.Queues[done / 32 % 2].Transact(request, request.Length));
        }));
        Assert.True(done >= config.MaxTest);
    }

    private static (long Heap, long Resident, int Descriptors) Usage()
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        long heap = GC.GetTotalMemory(forceFullCollection: true);
        long pages = long.Parse(File.ReadAllText("/proc/self/statm").Split(' ')[1], CultureInfo.InvariantCulture);
        return (heap, pages * Environment.SystemPageSize, Directory.GetFiles("/proc/self/fd").Length);
    }

    private static ulong Setting(string name, ulong otherwise) =>
        Environment.GetEnvironmentVariable(name) is { Length: > 0 } text ? ulong.Parse(text, CultureInfo.InvariantCulture) : otherwise;
}

/// <summary>Not beside other tests: it looks at what the whole process has.</summary>
[CollectionDefinition(nameof(HostileDriverTests), DisableParallelization = true)]
public sealed class HostileDriverCollection
{
}
