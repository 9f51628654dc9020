namespace Vmm.Sandbox;

/// <summary>Which root file system a sandbox runs on (tests/sandbox/build).</summary>
public enum SandboxFlavour
{
    /// <summary>Everything in an initramfs: busybox, KVM modules, the host's libc. Starts in seconds; the default.</summary>
    Light,

    /// <summary>A Debian 13 root with the real vhost-user back-ends, QEMU and measuring tools.</summary>
    Debian,
}

/// <summary>What a sandbox is to be.</summary>
public sealed record SandboxOptions
{
    /// <summary>The root file system.</summary>
    public SandboxFlavour Flavour { get; init; } = SandboxFlavour.Light;

    /// <summary>RAM of the sandbox in MiB, from 256 up. The default holds a 5 GiB guest. Taken from the host only as it is touched.</summary>
    public int MemoryMiB { get; init; } = 7168;

    /// <summary>Processors of the sandbox, from 1 up; 1 whenever <see cref="CountInstructions"/> is set.</summary>
    public int Cpus { get; init; } = 2;

    /// <summary>The sandbox's clock counts executed instructions, 1 ns each, so that times measured in it repeat.</summary>
    public bool CountInstructions { get; init; }

    /// <summary>How long the sandbox may take from its start until the agent answers.</summary>
    public TimeSpan StartTimeout { get; init; } = TimeSpan.FromSeconds(400);

    /// <summary>Largest amount in MiB that one copy in or out may hold, as a tar archive. Sparse: unused space costs nothing.</summary>
    public int TransferMiB { get; init; } = 8192;

    /// <summary>Files of the host that the sandbox has as disks, without a copy.</summary>
    public IReadOnlyList<SandboxDrive> Drives { get; init; } = [];

    /// <summary>The image's directory, as tests/sandbox/build prints it; null to have it built, or found in the cache.</summary>
    public string? ImageDirectory { get; init; }

    /// <summary>Called with each piece of the sandbox's own console, on a background thread.</summary>
    public Action<string>? OnConsole { get; init; }
}

/// <summary>A file of the host as a disk of the sandbox. What is written to it there is gone with the sandbox; the file stays as it is.</summary>
/// <param name="File">A raw image. Several disks may have the same one.</param>
/// <param name="Name">The disk is <c>/dev/drive/NAME</c> in the sandbox. Letters, digits, dots, dashes and underscores; at most 20.</param>
public readonly record struct SandboxDrive(string File, string Name)
{
    /// <summary>The longest name: a virtio disk's serial number has no more room.</summary>
    public const int LongestName = 20;

    /// <summary>Its path in the sandbox.</summary>
    public string Device => "/dev/drive/" + Name;

    internal bool IsValid => Name.Length is > 0 and <= LongestName
        && !Name.StartsWith("vmm-", StringComparison.Ordinal) && Name.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '-' or '_');
}
