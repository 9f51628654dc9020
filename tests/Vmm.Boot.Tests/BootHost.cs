using System.Diagnostics;
using Vmm.Core;
using Vmm.Core.Cpu;
using Vmm.Sandbox;
using SandboxMachine = Vmm.Sandbox.Sandbox;

namespace Vmm.Boot.Tests;

/// <summary>
/// Where guests boot: on this host where its KVM runs kernel code at speed, else in one sandbox for the whole run. Holds the vmm
/// binary and the guest images, under the same paths for both.
/// </summary>
public sealed class BootHost : IAsyncLifetime
{
    private readonly SandboxOptions _options;
    private readonly string[] _names;

    /// <summary>The guest images that the tests boot.</summary>
    public static readonly string[] Images = ["debian-12", "debian-13"];

    /// <summary>For the tests of a machine without virtio devices.</summary>
    // One processor: KVM patches the sandbox's kernel whenever a machine comes or goes, and QEMU's emulation of two processors on two
    // threads now and then executes what was just replaced ("Oops: int3"), which ends the sandbox.
    public BootHost()
        : this(new SandboxOptions { Cpus = 1 }, Images)
    {
    }

    /// <summary>With another sandbox and other images.</summary>
    internal BootHost(SandboxOptions options, string[] images)
    {
        _options = options;
        _names = images;
    }

    private readonly Dictionary<string, string> _images = [];
    private SandboxMachine? _sandbox;
    private string _binary = "";
    private string? _cannot;

    /// <summary>Whether guests run in the sandbox.</summary>
    public bool InSandbox => _sandbox != null;

    /// <summary>Whether guests boot at all.</summary>
    internal bool CanBoot => _cannot == null;

    /// <summary>The vmm binary, where the guests run.</summary>
    internal string Binary => _binary;

    /// <summary>Files of the host that are disks of the sandbox; asked for only where there is one.</summary>
    internal Func<Task<IReadOnlyList<SandboxDrive>>>? Drives { get; set; }

    /// <summary>A directory for the tests' own files, on the machine where the guests run.</summary>
    public string Scratch { get; private set; } = "";

    /// <summary>A file of a guest image, where the guests run.</summary>
    public string Image(string image, string file) => $"{_images[image]}/{file}";

    /// <inheritdoc/>
    public async Task InitializeAsync()
    {
        if (!File.Exists("/dev/kvm") && !CanEmulate())
        {
            _cannot = "there is neither /dev/kvm nor qemu-system-x86_64 for the sandbox";
            return;
        }
        string binary = Environment.GetEnvironmentVariable("VMM_BINARY") ?? Path.Combine(SandboxImage.RepositoryDirectory, "artifacts/vmm/vmm");
        if (!File.Exists(binary))
        {
            _cannot = $"there is no binary at {binary}; scripts/build makes it";
            return;
        }
        foreach (string image in _names)
            _images[image] = await SandboxImage.BuildGuestAsync(image);
        if (RunsKernelsHere())
        {
            _binary = binary;
            Scratch = Directory.CreateTempSubdirectory("vmm-boot-").FullName;
            return;
        }
        if (!CanEmulate())
        {
            _cannot = "this host's KVM does not run stock kernels, and qemu-system-x86_64 is not there for the sandbox";
            return;
        }
        _sandbox = await SandboxMachine.StartAsync(_options with { Drives = Drives != null ? await Drives() : [] });
        _binary = "/vmm/vmm";
        Scratch = "/vmm/scratch";
        await Shell("mkdir -p /vmm/scratch");
        await _sandbox.CopyInAsync(binary, _binary);
        foreach (string image in _names)
            await CopyImageIn(image);
    }

    /// <summary>Makes one more image, which few tests boot, ready to be booted.</summary>
    internal async Task AddImage(string image)
    {
        if (_images.ContainsKey(image))
            return;
        _images[image] = await SandboxImage.BuildGuestAsync(image);
        if (_sandbox != null)
            await CopyImageIn(image);
    }

    private async Task CopyImageIn(string image)
    {
        string here = Path.GetFullPath(new DirectoryInfo(_images[image]).ResolveLinkTarget(true)?.FullName ?? _images[image]);
        string there = $"/vmm/{image}";
        if (File.Exists(Path.Combine(here, "root.ext4")))
        {
            // That one is a disk of the sandbox (Drives); tests with disks boot the smaller of the kernel's two files.
            await _sandbox!.CopyInAsync(Path.Combine(here, "vmlinuz"), there + "/vmlinuz");
            await _sandbox.CopyInAsync(Path.Combine(here, "initramfs.cpio.gz"), there + "/initramfs.cpio.gz");
        }
        else
        {
            await _sandbox!.CopyInAsync(here, there);
        }
        _images[image] = there;
    }

    /// <summary>Copies a directory to where the guests run.</summary>
    internal async Task CopyIn(string directory, string there)
    {
        if (_sandbox != null)
            await _sandbox.CopyInAsync(directory, there);
        else
            (await RunHere($"cp -r {SandboxMachine.Quote(directory)} {SandboxMachine.Quote(there)}", TimeSpan.FromSeconds(60))).EnsureSuccess();
    }

    /// <inheritdoc/>
    public async Task DisposeAsync()
    {
        if (_sandbox != null)
            await _sandbox.DisposeAsync();
        else if (Scratch.Length > 0)
            Directory.Delete(Scratch, recursive: true);
    }

    /// <summary>Skips the calling test, visibly, where no guest can boot; fails it where that is demanded (VMM_REQUIRE_BOOT=1).</summary>
    public void Require()
    {
        if (_cannot == null)
            return;
        Assert.False(Environment.GetEnvironmentVariable("VMM_REQUIRE_BOOT") == "1", $"No guest can boot: {_cannot}.");
        Skip.If(true, $"no guest can boot: {_cannot}");
    }

    /// <summary>Runs <c>vmm</c> with arguments where the guests run, with its console on a pipe.</summary>
    public Task<CommandResult> RunVmm(IEnumerable<string> arguments, TimeSpan timeout) =>
        Shell(string.Join(' ', arguments.Prepend(_binary).Select(SandboxMachine.Quote)) + " </dev/null", timeout);

    /// <summary>The words that start vmm, for a shell line.</summary>
    public string Command(IEnumerable<string> arguments) =>
        string.Join(' ', arguments.Prepend(_binary).Select(SandboxMachine.Quote));

    /// <summary>Runs a shell line where the guests run.</summary>
    public Task<CommandResult> Shell(string line, TimeSpan? timeout = null)
    {
        TimeSpan limit = timeout ?? TimeSpan.FromSeconds(60);
        return _sandbox != null ? _sandbox.RunAsync(line, limit) : RunHere(line, limit);
    }

    private static bool CanEmulate() =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(d => File.Exists(Path.Combine(d, "qemu-system-x86_64")));

    private static bool RunsKernelsHere()
    {
        try
        {
            return !Directory.Exists("/sys/module/kvm_pvm") && SpeedProbe.MeasureInstructionsPerSecond() >= SpeedProbe.EnoughPerSecond;
        }
        catch (VmmException)
        {
            return false;
        }
    }

    private static async Task<CommandResult> RunHere(string line, TimeSpan limit)
    {
        using var process = Process.Start(new ProcessStartInfo("/bin/sh")
        {
            ArgumentList = { "-c", line },
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        using var cancel = new CancellationTokenSource(limit);
        using var output = new MemoryStream();
        using var errors = new MemoryStream();
        Task copies = Task.WhenAll(process.StandardOutput.BaseStream.CopyToAsync(output), process.StandardError.BaseStream.CopyToAsync(errors));
        bool timedOut = false;
        try
        {
            await process.WaitForExitAsync(cancel.Token);
        }
        catch (OperationCanceledException)
        {
            timedOut = true;
            process.Kill(entireProcessTree: true);
            await process.WaitForExitAsync(CancellationToken.None);
        }
        await copies;
        return new CommandResult
        {
            ExitCode = process.ExitCode,
            Signal = 0,
            TimedOut = timedOut,
            OutputBytes = output.ToArray(),
            ErrorBytes = errors.ToArray(),
        };
    }
}

/// <summary>One host for all boot tests, started once a run.</summary>
[CollectionDefinition(Name)]
public sealed class BootCollection : ICollectionFixture<BootHost>
{
    /// <summary>The collection's name.</summary>
    public const string Name = "boot";
}
