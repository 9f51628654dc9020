using System.Globalization;
using System.Text.Json;
using Vmm.Tests.Payloads;
using Xunit.Abstractions;

namespace Vmm.Cli.Tests.EndToEnd;

/// <summary>
/// Hostile drivers as real guests: a vCPU executes them, against each virtio device on both buses. The machine goes on, a disk beside the
/// attacked device answers all along, and the device comes up again at the end.
/// </summary>
/// <remarks>
/// VMM_TEST_HOSTILE_PAYLOADS: guests for each device (1), each with the next seed. VMM_TEST_HOSTILE_PAYLOAD_SEED: the first one's.
/// The same attacks without a guest, in far greater numbers, are Vmm.Virtio.Tests' HostileDriverTests.
/// </remarks>
public sealed class HostileDriverTests(ITestOutputHelper output)
{
    private const int Attacks = 1500;
    private const int LargestLog = 256 * 1024;

    public static TheoryData<string, string, bool> Victims()
    {
        var victims = new TheoryData<string, string, bool>();
        foreach ((string device, string option) in new[]
        {
            ("disk1", "--disk"), ("net0", "--net"), ("console0", "--console"), ("rng0", "--rng"), ("balloon0", "--balloon"), ("pmem0", "--pmem"), ("mem0", ""),
        })
        {
            victims.Add(device, option, false);
            // The console and memory that is plugged in have no bus of their own to choose.
            if (device is not ("console0" or "mem0"))
                victims.Add(device, option, true);
        }
        return victims;
    }

    [SkippableTheory]
    [MemberData(nameof(Victims))]
    public void A_device_survives_what_a_guest_does_to_it(string device, string option, bool pci)
    {
        NeedsKvm.Check();
        NeedsKvm.Check(option != "--net" || Environment.IsPrivilegedProcess, "Only root can make a tap.");
        int guests = Setting("VMM_TEST_HOSTILE_PAYLOADS", 1);
        int seed = Setting("VMM_TEST_HOSTILE_PAYLOAD_SEED", 20261121);
        for (int i = 0; i < guests; i++)
            Survives(device, option, pci, seed + i);
    }

    private void Survives(string device, string option, bool pci, int seed)
    {
        output.WriteLine($"VMM_TEST_HOSTILE_PAYLOAD_SEED={seed}");
        using var vmm = new VmmProgram();
        vmm.MayRemain.UnionWith(["serial", "log", "metrics", "hvc"]);
        byte[] neighbour = new byte[4096];
        BitConverter.TryWriteBytes(neighbour, HostileDriver.NeighboursData);
        byte[] content = new byte[4 << 20];
        new Random(seed).NextBytes(content);
        string bus = pci ? ",bus=pci" : ",bus=mmio";
        List<string> words =
        [
            "run", "--kernel", vmm.Make("kernel", HostileDriver.Make(seed, pci, Attacks)), "--serial", "file=serial", "--log-file", "log",
            "--metrics", "file=metrics", "--bus", "mmio", "--disk", "path=" + vmm.Make("neighbour", neighbour) + ",bus=mmio",
            "--memory", "size=" + HostileDriver.Memory + (device == "mem0" ? ",hotplug_size=128M" : ""),
        ];
        switch (option)
        {
            case "--disk":
                words.AddRange([option, "path=" + vmm.Make("disk", content) + ",num_queues=2" + bus]);
                break;
            case "--net":
                words.AddRange([option, "tap=vmmhostile,num_queues=4" + bus]);
                break;
            case "--console":
                words.AddRange([option, "file=hvc"]);
                break;
            case "--rng":
                words.AddRange([option, "src=/dev/urandom" + bus]);
                break;
            case "--balloon":
                words.AddRange([option, "size=4M,free_page_reporting=on,deflate_on_oom=on" + bus]);
                break;
            case "--pmem":
                words.AddRange([option, "file=" + vmm.Make("pmem", content) + bus]);
                break;
        }
        Outcome outcome = vmm.Run([.. words]);
        string serial = File.ReadAllText(Path.Combine(vmm.RunFolder, "serial"));
        string log = Path.Combine(vmm.RunFolder, "log");
        Assert.True(outcome == new Outcome(0, "", "") && serial == HostileDriver.Farewell, $"seed {seed}: {outcome}\n{serial}\n{Tail(log)}");
        Assert.DoesNotContain("defect", File.ReadAllText(log), StringComparison.OrdinalIgnoreCase);
        Assert.True(new FileInfo(log).Length < LargestLog, $"The log has {new FileInfo(log).Length} bytes.");

        using JsonDocument metrics = JsonDocument.Parse(File.ReadLines(Path.Combine(vmm.RunFolder, "metrics")).Last());
        JsonElement devices = metrics.RootElement.GetProperty("devices");
        Assert.Equal((Attacks / 25) + 1, devices.GetProperty("disk0").GetProperty("queue0_requests").GetInt64());
        long kicks = 0;
        long given = 0;
        foreach (JsonProperty counter in devices.GetProperty(device).EnumerateObject().Where(c => c.Name.StartsWith("queue", StringComparison.Ordinal)))
        {
            kicks += counter.Name.EndsWith("_kicks", StringComparison.Ordinal) ? counter.Value.GetInt64() : 0;
            given += counter.Name.EndsWith("_requests", StringComparison.Ordinal) ? counter.Value.GetInt64() : 0;
        }
        output.WriteLine($"{device} on {(pci ? "PCI" : "MMIO")}: {kicks} turns of its queues, {given} buffers given back, {new FileInfo(log).Length} bytes of log");
        Assert.True(kicks > 0, "Not one doorbell rang: the attack does not reach the queues.");
        Assert.True(given > 0, "Not one buffer was given back: the attack does not reach the device.");
    }

    private static string Tail(string path) => string.Join('\n', File.ReadLines(path).TakeLast(10));

    private static int Setting(string name, int otherwise) =>
        Environment.GetEnvironmentVariable(name) is { Length: > 0 } text ? int.Parse(text, CultureInfo.InvariantCulture) : otherwise;
}
