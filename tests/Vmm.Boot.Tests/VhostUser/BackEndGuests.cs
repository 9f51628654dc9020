using Vmm.Boot.Tests.Virtio;
using Vmm.Sandbox;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests.VhostUser;

/// <summary>What the tests with real back-ends share.</summary>
internal static class BackEndGuests
{
    /// <summary>How long a guest may take.</summary>
    public static TimeSpan Limit { get; } = VirtioHost.Full || VirtioHost.Rounds > 10 ? TimeSpan.FromMinutes(60) : TimeSpan.FromMinutes(20);

    /// <summary>What fio writes and verifies, as fio writes a size.</summary>
    public static string FioSize { get; } = Environment.GetEnvironmentVariable("VMM_TEST_FIO_SIZE") ?? (VirtioHost.Full ? "32m" : "1m");

    /// <summary>An address by which a guest of passt reaches its host.</summary>
    public const string Host4 = "10.91.9.1";

    /// <summary>Another one.</summary>
    public const string Host6 = "fd00:91:9::1";

    /// <summary>Where passt listens.</summary>
    public const string PasstSocket = PasstFolder + "/socket";

    private const string PasstFolder = "/run/vmm-passt";

    /// <summary>Where vmm writes its metrics in a test.</summary>
    public static string Metrics(VirtioHost host) => $"{host.Scratch}/metrics.jsonl";

    /// <summary>The options that all of them have.</summary>
    public static string[] Options(VirtioHost host) => ["--on-reboot", "restart", "--metrics", $"file={Metrics(host)},interval=1"];

    /// <summary>
    /// Starts a back-end beside the guest, and again whenever it ends, as a service manager would; its end is the end of what is returned.
    /// </summary>
    /// <param name="host">Where.</param>
    /// <param name="name">For its files.</param>
    /// <param name="command">It; "exec" will be put before.</param>
    public static async Task<IAsyncDisposable> Start(VirtioHost host, string name, string command)
    {
        string script = $"{host.Scratch}/{name}.sh";
        string file = $"{host.Scratch}/{name}.pid";
        await Must(host, $"cat > {script} <<'END'\n(while test ! -e {file}.end; do sh -c 'echo $$ > {file}; exec {command}'; sleep 0.2; done) > {host.Scratch}/{name}.log 2>&1 < /dev/null\nEND\n"
            + $"rm -f {file} {file}.end; setsid sh {script} > /dev/null 2>&1 < /dev/null & for i in 1 2 3 4 5 6 7 8 9; do test -s {file} && exit; sleep 0.2; done; exit 1");
        return new Service(host, file);
    }

    /// <summary>Starts passt as an ordinary user, likewise, with an interface for it to tell the guest of.</summary>
    public static async Task<IAsyncDisposable> StartPasst(VirtioHost host)
    {
        await host.RequireProgram("passt");
        // Only in the sandbox: elsewhere that is the administrator's.
        Skip.IfNot(host.InSandbox, "this test makes a network interface with a default route, so it runs in the sandbox only");
        await Must(
            host,
            "ip link show vmmout >/dev/null 2>&1 && exit; modprobe veth; ip link add vmmout type veth peer name vmmin && ip link set lo up && ip link set vmmout up && ip link set vmmin up"
            + " && ip addr add 10.91.0.15/24 dev vmmout && ip route add default via 10.91.0.2 && ip -6 addr add fd00:91::15/64 dev vmmout nodad && ip -6 route add default via fd00:91::2 dev vmmout");
        await Must(host, $"mkdir -p {PasstFolder} && chown nobody {PasstFolder}");
        return await Start(
            host, "passt",
            $"setpriv --reuid=nobody --regid=nogroup --clear-groups passt -f --vhost-user --socket {PasstSocket} --map-host-loopback {Host4} --map-host-loopback {Host6}");
    }

    /// <summary>Runs the guest and looks at what it found.</summary>
    public static async Task Check(VirtioHost host, GuestMachine machine, ITestOutputHelper log, IReadOnlyList<string>? program = null)
    {
        await Must(host, $"rm -f {Metrics(host)}");
        GuestRun run = await host.Run(machine, Limit, program);
        run.AssertChecks(log);
        Assert.Equal(0, run.ExitCode);
    }

    /// <summary>Runs a shell line where the guests run, which is not to fail.</summary>
    public static async Task Must(VirtioHost host, string line)
    {
        CommandResult result = await host.Shell(line, TimeSpan.FromMinutes(1));
        Assert.True(result.ExitCode == 0, $"{line}: {result.Output}{result.Error}");
    }

    private sealed class Service(VirtioHost host, string file) : IAsyncDisposable
    {
        public async ValueTask DisposeAsync() =>
            await Must(host, $"touch {file}.end; kill $(cat {file}) 2>/dev/null; cat {file}.log 2>/dev/null; true");
    }
}

/// <summary>A host of their own for the tests with real back-ends: a sandbox has no places for more disks than those of the other tests.</summary>
[CollectionDefinition(Name)]
public sealed class BackEndCollection : ICollectionFixture<VirtioHost>
{
    /// <summary>The collection's name.</summary>
    public const string Name = "back-ends";
}
