using System.Diagnostics;
using System.Globalization;
using Vmm.Sandbox;

namespace Vmm.Boot.Tests.Virtio;

/// <summary>
/// Where guests with disks boot: the same as <see cref="BootHost"/>, in a sandbox of its own that has the tools of the other side
/// (iperf3, socat, e2fsprogs) and the guests' roots as disks.
/// </summary>
/// <remarks>
/// <c>VMM_TEST_PEER=qemu</c> runs the same guests on the sandbox's QEMU in place of vmm: what fails there too is the test's fault or the
/// guest's. <c>VMM_TEST_FULL=1</c> runs every combination, and longer; scripts/soak does.
/// </remarks>
public sealed class VirtioHost : IAsyncLifetime
{
    /// <summary>The guest images that the tests boot.</summary>
    public static readonly string[] Images = ["debian-12-disk", "debian-13-disk"];

    // Each boot has a root of its own: what one test did to its root is no other's business.
    private const int RootsOfEach = 12;

    private readonly BootHost _boot = new(new SandboxOptions { Flavour = SandboxFlavour.Debian, Cpus = 1 }, Images);
    private readonly Dictionary<string, int> _rootsGiven = [];

    /// <summary>Whether everything is run, and not only what fits into minutes.</summary>
    public static bool Full { get; } = Environment.GetEnvironmentVariable("VMM_TEST_FULL") == "1";

    /// <summary>Whether every guest and bus is run, at whatever length.</summary>
    public static bool AllRows { get; } = Full || Environment.GetEnvironmentVariable("VMM_TEST_ROWS") == "all";

    /// <summary>How often drivers leave and come back.</summary>
    public static int Rounds { get; } =
        Environment.GetEnvironmentVariable("VMM_TEST_ROUNDS") is { Length: > 0 } rounds ? int.Parse(rounds, CultureInfo.InvariantCulture) : Full ? 100 : 3;

    /// <summary>Whether QEMU runs the guests in place of vmm.</summary>
    public static bool Peer { get; } = Environment.GetEnvironmentVariable("VMM_TEST_PEER") == "qemu";

    /// <summary>Whether guests run in the sandbox.</summary>
    public bool InSandbox => _boot.InSandbox;

    /// <summary>A file or directory for a test's own use, on the machine where the guests run; in memory.</summary>
    public string Scratch => _boot.Scratch;

    /// <summary>The vmm binary, where the guests run.</summary>
    public string Binary => _boot.Binary;

    /// <summary>The kernel of a guest image, where the guests run.</summary>
    public string Kernel(string image) => _boot.Image(image, "vmlinuz");

    /// <inheritdoc/>
    public async Task InitializeAsync()
    {
        string scripts = Path.Combine(SandboxImage.RepositoryDirectory, "tests/Vmm.Boot.Tests/Virtio/scripts");
        _boot.Drives = async () =>
        {
            var drives = new List<SandboxDrive>();
            foreach (string image in Images)
            {
                string root = Path.GetFullPath(Path.Combine(await SandboxImage.BuildGuestAsync(image), "root.ext4"));
                for (int i = 0; i < RootsOfEach; i++)
                    drives.Add(new SandboxDrive(root, $"{image}-{i}"));
            }
            return drives;
        };
        await _boot.InitializeAsync();
        if (!_boot.CanBoot)
            return;
        if (_boot.InSandbox)
        {
            await Must($"mount -t tmpfs -o size=50% scratch {Scratch}");
            // A processor of the guest that waits must not keep the only real one busy meanwhile.
            await Must("echo 0 > /sys/module/kvm/parameters/halt_poll_ns");
        }
        await _boot.CopyIn(scripts, Scratch + "/scripts");
        // The kernel takes archives one after the other, the first one uncompressed: ours with the scripts, then the image's.
        foreach (string image in Images)
            await AddScripts(image);
        await Must("pidof iperf3 >/dev/null || iperf3 -s -D; modprobe tun 2>/dev/null; test -c /dev/net/tun");
    }

    /// <summary>Makes one more image, which has no root on a disk, ready to be booted.</summary>
    public async Task AddImage(string image)
    {
        await _boot.AddImage(image);
        await AddScripts(image);
    }

    private Task AddScripts(string image) => Must(
        $"cd {Scratch} && mkdir -p x && rm -rf x/vmm && cp -r scripts/guest x/vmm && cd x && find vmm | busybox cpio -o -H newc > ../{image}.initramfs 2>/dev/null"
        + $" && cat {_boot.Image(image, "initramfs.cpio.gz")} >> ../{image}.initramfs");

    /// <inheritdoc/>
    public Task DisposeAsync() => _boot.DisposeAsync();

    /// <summary>Skips the calling test, visibly, where no guest can boot; fails it where that is demanded (VMM_REQUIRE_BOOT=1).</summary>
    public void Require() => _boot.Require();

    /// <summary>A root that nobody has used yet: a block device or a file.</summary>
    public async Task<string> FreshRoot(string image)
    {
        int number = _rootsGiven[image] = _rootsGiven.GetValueOrDefault(image) + 1;
        if (_boot.InSandbox)
        {
            Assert.InRange(number, 1, RootsOfEach);
            return new SandboxDrive("", $"{image}-{number - 1}").Device;
        }
        string copy = $"{Scratch}/{image}-{number}.ext4";
        await Must($"cp --reflink=auto --sparse=always {_boot.Image(image, "root.ext4")} {copy}");
        return copy;
    }

    /// <summary>Skips the calling test, visibly, where a program is missing that it needs on the host. The sandbox has them all.</summary>
    public async Task RequireProgram(string program)
    {
        CommandResult found = await _boot.Shell($"PATH=$PATH:/usr/libexec:/usr/lib/qemu; command -v {program}");
        if (found.ExitCode == 0)
            return;
        Assert.False(_boot.InSandbox || Environment.GetEnvironmentVariable("VMM_REQUIRE_BOOT") == "1", $"{program} is not there.");
        Skip.If(true, $"{program} is not there");
    }

    /// <summary>A new empty file of that size, sparse and in memory.</summary>
    public async Task<string> EmptyFile(string name, int megabytes)
    {
        string path = $"{Scratch}/{name}";
        await Must($"rm -f {path} && truncate -s {megabytes}M {path}");
        return path;
    }

    /// <summary>Boots a guest and waits for the end of its VMM.</summary>
    /// <param name="machine">It.</param>
    /// <param name="timeout">How long that may take.</param>
    /// <param name="program">Words that start a program with vmm's options in place of vmm.</param>
    public async Task<GuestRun> Run(GuestMachine machine, TimeSpan timeout, IReadOnlyList<string>? program = null)
    {
        var watch = Stopwatch.StartNew();
        string kernel = _boot.Image(machine.Image, "vmlinuz");
        string initramfs = $"{Scratch}/{machine.Image}.initramfs";
        IEnumerable<string> words = Peer ? machine.ForQemu(kernel, initramfs) : (program ?? [_boot.Binary, "run"]).Concat(machine.ForVmm(kernel, initramfs));
        string prepare = Peer && machine.Tap is { } tap
            ? $"ip link show {tap} >/dev/null 2>&1 || ip tuntap add {tap} mode tap && ip addr replace {GuestMachine.HostAddress}/24 dev {tap} && ip link set {tap} up; "
            : "";
        CommandResult result = await _boot.Shell(
            $"{prepare}exec sh {Scratch}/scripts/drive.sh {string.Join(' ', words.Select(Sandbox.Sandbox.Quote))}", timeout);
        return new GuestRun(result, watch.Elapsed);
    }

    /// <summary>Copies a directory to where the guests run.</summary>
    public Task CopyIn(string directory, string there) => _boot.CopyIn(directory, there);

    /// <summary>Runs a shell line where the guests run.</summary>
    public Task<CommandResult> Shell(string line, TimeSpan? timeout = null) => _boot.Shell(line, timeout);

    private async Task Must(string line)
    {
        CommandResult result = await _boot.Shell(line, TimeSpan.FromMinutes(2));
        Assert.True(result.ExitCode == 0, $"{line}: {result.Output}{result.Error}");
    }
}

/// <summary>One host for all tests of virtio devices, started once a run.</summary>
[CollectionDefinition(Name)]
public sealed class VirtioCollection : ICollectionFixture<VirtioHost>
{
    /// <summary>The collection's name.</summary>
    public const string Name = "virtio";
}
