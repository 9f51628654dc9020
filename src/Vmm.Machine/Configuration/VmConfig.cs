using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary>Everything that a machine is made from: plain data, read and checked once.</summary>
public sealed record VmConfig
{
    /// <summary>The virtual processors.</summary>
    public CpusConfig Cpus { get; init; } = new();

    /// <summary>The guest's RAM.</summary>
    public MemoryConfig Memory { get; init; } = new();

    /// <summary>Kernel, initramfs and command line.</summary>
    public PayloadConfig Payload { get; init; } = new();

    /// <summary>How the kernel is entered.</summary>
    public BootConfig Boot { get; init; } = new();

    /// <summary>The other end of COM1.</summary>
    public ConsoleConfig Serial { get; init; } = new(ConsoleBackend.Tty);

    /// <summary>The other end of port 0xE9.</summary>
    public ConsoleConfig DebugConsole { get; init; } = new(ConsoleBackend.Off);

    /// <summary>Whether the guest can end its machine with a code of its own.</summary>
    public DebugExitConfig DebugExit { get; init; } = new();

    /// <summary>Whether the guest finds ACPI tables.</summary>
    public AcpiConfig Acpi { get; init; } = new();

    /// <summary>What a reboot of the guest does.</summary>
    public RebootConfig OnReboot { get; init; } = new();

    /// <summary>What a panic of the guest's kernel does.</summary>
    public PanicConfig OnPanic { get; init; } = new();

    /// <summary>The program's own log.</summary>
    public LogConfig Log { get; init; } = new();

    /// <summary>Where virtio devices go that do not say it themselves.</summary>
    public BusConfig Bus { get; init; } = new();

    /// <summary>The threads that serve virtio queues.</summary>
    public IoThreadsConfig IoThreads { get; init; } = IoThreadsConfig.Default;

    /// <summary>Disks, in the order in which the guest finds them.</summary>
    public ConfigList<DiskConfig> Disks { get; init; } = ConfigList<DiskConfig>.Empty;

    /// <summary>Network cards, in the order in which the guest finds them.</summary>
    public ConfigList<NetConfig> Net { get; init; } = ConfigList<NetConfig>.Empty;

    /// <summary>Files as persistent memory.</summary>
    public ConfigList<PmemConfig> Pmem { get; init; } = ConfigList<PmemConfig>.Empty;

    /// <summary>File systems of external back-ends.</summary>
    public ConfigList<FsConfig> Fs { get; init; } = ConfigList<FsConfig>.Empty;

    /// <summary>Graphics cards of external back-ends.</summary>
    public ConfigList<GpuConfig> Gpu { get; init; } = ConfigList<GpuConfig>.Empty;

    /// <summary>The socket device of an external back-end; null for none.</summary>
    public VsockConfig? Vsock { get; init; }

    /// <summary>Other devices of external back-ends.</summary>
    public ConfigList<VhostUserConfig> VhostUser { get; init; } = ConfigList<VhostUserConfig>.Empty;

    /// <summary>Whether other programs serve devices, and so need the guest's memory.</summary>
    public bool HasBackEnds =>
        Fs.Count > 0 || Gpu.Count > 0 || Vsock is not null || VhostUser.Count > 0 || Disks.Any(disk => disk.BackEnd is not null) || Net.Any(card => card.BackEnd is not null);

    /// <summary>The other end of the virtio console (hvc0).</summary>
    public ConsoleConfig Console { get; init; } = new(ConsoleBackend.Off);

    /// <summary>The entropy device; null for none.</summary>
    public RngConfig? Rng { get; init; }

    /// <summary>The balloon; null for none.</summary>
    public BalloonConfig? Balloon { get; init; }

    /// <summary>The watchdog.</summary>
    public WatchdogConfig Watchdog { get; init; } = new();

    /// <summary>Where counters go.</summary>
    public MetricsConfig Metrics { get; init; } = new();

    /// <summary>Every section that a file and the environment can have.</summary>
    public static IReadOnlyList<SectionSchema> Sections { get; } =
    [
        CpusConfig.Section, MemoryConfig.Section, PayloadConfig.Section, BootConfig.Section, ConsoleConfig.SerialSection,
        ConsoleConfig.DebugSection, AcpiConfig.Section, RebootConfig.Section, LogConfig.Section, BusConfig.Section, IoThreadsConfig.Section,
        DiskConfig.Section, NetConfig.Section, PmemConfig.Section, FsConfig.Section, GpuConfig.Section, VsockConfig.Section, VhostUserConfig.Section, ConsoleConfig.VirtioSection, RngConfig.Section, BalloonConfig.Section,
        WatchdogConfig.Section, MetricsConfig.Section, DebugExitConfig.Section, PanicConfig.Section,
    ];

    /// <summary>Every option of the command line that sets something here, in the order of the help.</summary>
    public static IReadOnlyList<OptionSchema> Options { get; } =
    [
        PayloadConfig.KernelOption, PayloadConfig.InitramfsOption, PayloadConfig.CommandLineOption, CpusConfig.Option, MemoryConfig.Option,
        DiskConfig.Option, NetConfig.Option, ConsoleConfig.SerialOption, ConsoleConfig.VirtioOption, ConsoleConfig.DebugOption, RngConfig.Option,
        BalloonConfig.Option, PmemConfig.Option, FsConfig.Option, GpuConfig.Option, VsockConfig.Option, VhostUserConfig.Option, WatchdogConfig.Option, BusConfig.Option, IoThreadsConfig.Option, BootConfig.Option,
        AcpiConfig.Option, RebootConfig.Option, PanicConfig.Option, DebugExitConfig.Option, MetricsConfig.Option, LogConfig.LevelOption, LogConfig.FileOption, LogConfig.FormatOption,
    ];

    /// <summary>Whether an option may be given more than once.</summary>
    public static bool Repeats(OptionSchema option)
    {
        ArgumentNullException.ThrowIfNull(option);
        return Sections.First(section => section.Name == option.Section).Repeats;
    }

    /// <summary>Refuses a configuration that says nothing to start, and files that are written and used for something else too.</summary>
    /// <exception cref="VmmException">There is no kernel, or something that is written has the path of something else.</exception>
    public void CheckRunnable()
    {
        if (Payload.Kernel is null)
            throw VmmException.Configuration("there is no kernel to start; name one with --kernel PATH.");
        (string Option, string? Path)[] read = [("--kernel", Payload.Kernel), ("--initramfs", Payload.Initramfs)];
        (string Option, string? Path)[] written =
        [
            ("--serial", Serial.Path), ("--debug-console", DebugConsole.Path), ("--console", Console.Path), ("--log-file", Log.File), ("--metrics", Metrics.File),
            .. Gpu.Select(gpu => ("--gpu screenshot=", gpu.Screenshot)),
        ];
        for (int i = 0; i < written.Length; i++)
        {
            foreach ((string option, string? path) in (ReadOnlySpan<(string, string?)>)[.. read, .. written.AsSpan(0, i)])
                RequireDistinct(option, path, written[i].Option, written[i].Path);
        }
        if (Console.Backend == ConsoleBackend.Tty && Serial.Backend == ConsoleBackend.Tty)
            throw VmmException.Configuration("--console and --serial are both tty, and there is one terminal; give the serial port another end (--serial null).");
    }

    /// <summary>Refuses two devices of one name.</summary>
    /// <exception cref="VmmException">A name is there twice.</exception>
    internal void CheckNames()
    {
        var names = new HashSet<string>();
        IEnumerable<VirtioOptions?> all = [.. Disks.Select(disk => disk.Virtio), .. Net.Select(net => net.Virtio), .. Pmem.Select(pmem => pmem.Virtio), .. Fs.Select(fs => fs.Virtio), .. Gpu.Select(gpu => gpu.Virtio), .. VhostUser.Select(device => device.Virtio), Vsock?.Virtio, Rng?.Virtio, Balloon?.Virtio];
        foreach (VirtioOptions? options in all)
        {
            if (options?.Id is { } id && !names.Add(id))
                throw VmmException.Configuration($"two devices have the name {OptionGrammar.Show(id)}; give each its own (id=).");
        }
    }

    // By name: that one of them is another name of the same file is not looked for. A device can be shared.
    private static void RequireDistinct(string option, string? path, string other, string? otherPath)
    {
        if (path is null || otherPath is null || !SamePath(path, otherPath) || otherPath.StartsWith("/dev/", StringComparison.Ordinal))
            return;
        throw VmmException.Configuration($"{option} and {other} both have {OptionGrammar.Show(path)}, which would be written over; give each its own.");
    }

    private static bool SamePath(string one, string other) =>
        one == other || System.IO.Path.GetFullPath(one) == System.IO.Path.GetFullPath(other);
}
