using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Vmm.Boot.Tests.Virtio;
using Vmm.Sandbox;
using Xunit.Abstractions;

namespace Vmm.Boot.Tests.VhostUser;

/// <summary>
/// A stock guest and the back-end for tests, which share memory. The guest's script asks the back-end to do something, and looks at what came of it.
/// </summary>
/// <param name="Image">The guest's image.</param>
/// <param name="Bus">pci or mmio.</param>
/// <param name="Script">Which of <c>shmem/guest</c> the guest runs.</param>
internal sealed partial record ShmemGuest(string Image, string Bus, string Script)
{
    private static readonly SemaphoreSlim s_preparing = new(1);
    private static string? s_prepared;

    /// <summary>What the script reads: NAME=VALUE.</summary>
    public string Environment { get; init; } = "";

    /// <summary>The back-end's options, without its socket; null where the guest needs none.</summary>
    public string? BackEnd { get; init; }

    /// <summary>vmm's options for its devices. The directory of the run is the current one; the back-end listens at <c>socket</c> there.</summary>
    public string[] Devices { get; init; } = [];

    /// <summary>A shell line that prepares the directory of the run.</summary>
    public string Prepare { get; init; } = "true";

    /// <summary>The program of the back-end, which scripts/test builds.</summary>
    private static string? Tool => System.Environment.GetEnvironmentVariable("VMM_TEST_VHOST_USER_BACKEND");

    /// <summary>Runs it to its end, and fails unless every check of the guest went well and vmm ended as after a power-off.</summary>
    public async Task<ShmemRun> Run(BootHost host, ITestOutputHelper log, TimeSpan limit)
    {
        host.Require();
        Assert.False(Tool == null && System.Environment.GetEnvironmentVariable("VMM_REQUIRE_BOOT") == "1", "VMM_TEST_VHOST_USER_BACKEND does not name the back-end; scripts/test does.");
        Skip.If(Tool == null, "VMM_TEST_VHOST_USER_BACKEND does not name the back-end; scripts/test builds it");
        await PrepareHost(host);
        string scratch = host.Scratch + "/shmem";
        string directory = $"{scratch}/{Script}-{Image}-{Bus}";
        string guest = Convert.ToBase64String(Encoding.UTF8.GetBytes($"{Environment} sh /vmm/{Script}.sh"));
        string[] options =
        [
            "run", "--kernel", host.Image(Image, "vmlinux"), "--initramfs", $"{scratch}/{Image}.initramfs", "--memory", "size=256M", "--bus", Bus,
            "--serial", "null", "--console", "tty", "--metrics", "file=metrics,interval=3600", .. Devices,
            "--cmdline", $"console=ttyS0 quiet panic=-1 vmm.console=hvc0 vmm.end=poweroff vmm.run64={guest}",
        ];
        string backEnd = BackEnd == null ? "sh -c 'echo ready; while read -r line; do echo ok none; done'" : $"{scratch}/tool/vhost-user-backend --socket=socket {BackEnd}";
        var watch = System.Diagnostics.Stopwatch.StartNew();
        CommandResult result = await host.Shell(
            $"mkdir -p {directory} && cd {directory} && {{ {Prepare}; }} && sh {scratch}/scripts/attach.sh . {Sandbox.Sandbox.Quote(backEnd)} {host.Command(options)}; code=$?; cd /; exit $code",
            limit);
        var run = new GuestRun(result, watch.Elapsed);
        // What a run leaves is as large as its files.
        CommandResult trace = await host.Shell($"tail -n 40 {directory}/trace | cut -c 1-300; rm -rf {directory}");
        if (run.ExitCode != 0 || run.Checks.Any(check => check.Result != "ok"))
            log.WriteLine(trace.Output);
        run.AssertChecks(log);
        Assert.Equal(0, run.ExitCode);
        Dictionary<string, long> metrics = Counter().Matches(string.Concat(run.Lines("METRICS")))
            .GroupBy(match => match.Groups[1].Value).ToDictionary(group => group.Key, group => group.Sum(match => long.Parse(match.Groups[2].Value, CultureInfo.InvariantCulture)));
        return new ShmemRun(run, result.Output + result.Error, metrics);
    }

    private static async Task PrepareHost(BootHost host)
    {
        await s_preparing.WaitAsync();
        try
        {
            if (s_prepared == host.Scratch)
                return;
            string tests = Path.Combine(SandboxImage.RepositoryDirectory, "tests/Vmm.Boot.Tests");
            string scratch = host.Scratch + "/shmem";
            string here = Directory.CreateTempSubdirectory("vmm-shmem-").FullName;
            try
            {
                // Nothing of it is built for the guest's system but one static program.
                CommandResult compiled = await RunHere($"gcc -O2 -Wall -Werror -static -o {here}/mem {tests}/VhostUser/shmem/guest/mem.c && cp {tests}/VhostUser/shmem/guest/*.sh {tests}/Virtio/scripts/guest/checks.sh {here}");
                Assert.True(compiled.ExitCode == 0, compiled.Error);
                await Must(host, $"mkdir -p {scratch}");
                await host.CopyIn(Path.Combine(tests, "VhostUser/shmem"), scratch + "/scripts");
                await host.CopyIn(Path.Combine(tests, "Virtio/scripts/drive.sh"), scratch + "/scripts/drive.sh");
                await host.CopyIn(Path.GetDirectoryName(Tool)!, scratch + "/tool");
                await host.CopyIn(here, scratch + "/vmm");
            }
            finally
            {
                Directory.Delete(here, recursive: true);
            }
            // The kernel takes archives one after the other, the first one uncompressed.
            foreach (string image in BootHost.Images)
                await Must(host, $"cd {scratch} && find vmm | busybox cpio -o -H newc 2>/dev/null > {image}.initramfs && cat {host.Image(image, "initramfs.cpio.gz")} >> {image}.initramfs");
            s_prepared = host.Scratch;
        }
        finally
        {
            s_preparing.Release();
        }
    }

    private static async Task<CommandResult> RunHere(string line)
    {
        using var process = System.Diagnostics.Process.Start(new System.Diagnostics.ProcessStartInfo("/bin/sh", ["-c", line]) { RedirectStandardError = true })!;
        string errors = await process.StandardError.ReadToEndAsync();
        await process.WaitForExitAsync();
        return new CommandResult { ExitCode = process.ExitCode, Signal = 0, TimedOut = false, OutputBytes = [], ErrorBytes = Encoding.UTF8.GetBytes(errors) };
    }

    private static async Task Must(BootHost host, string line)
    {
        CommandResult result = await host.Shell(line, TimeSpan.FromMinutes(2));
        Assert.True(result.ExitCode == 0, $"{line}: {result.Output}{result.Error}");
    }

    [GeneratedRegex("\"([a-z0-9_]+)\":(-?\\d+)")]
    private static partial Regex Counter();
}

/// <summary>What came of it.</summary>
/// <param name="Guest">What the guest found.</param>
/// <param name="Output">All that was printed.</param>
/// <param name="Counters">vmm's counters at its end, those of one name added up.</param>
internal sealed record ShmemRun(GuestRun Guest, string Output, IReadOnlyDictionary<string, long> Counters)
{
    /// <summary>What the back-end says of its front-end: <c>ok none</c> where it kept all rules.</summary>
    public string Violations => Guest.Lines("BACK-END").Single();
}
