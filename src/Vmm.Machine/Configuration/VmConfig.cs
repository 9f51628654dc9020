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

    /// <summary>Whether the guest finds ACPI tables.</summary>
    public AcpiConfig Acpi { get; init; } = new();

    /// <summary>What a reboot of the guest does.</summary>
    public RebootConfig OnReboot { get; init; } = new();

    /// <summary>The program's own log.</summary>
    public LogConfig Log { get; init; } = new();

    /// <summary>Every section that a file and the environment can have.</summary>
    public static IReadOnlyList<SectionSchema> Sections { get; } =
    [
        CpusConfig.Section, MemoryConfig.Section, PayloadConfig.Section, BootConfig.Section, ConsoleConfig.SerialSection,
        ConsoleConfig.DebugSection, AcpiConfig.Section, RebootConfig.Section, LogConfig.Section,
    ];

    /// <summary>Every option of the command line that sets something here, in the order of the help.</summary>
    public static IReadOnlyList<OptionSchema> Options { get; } =
    [
        PayloadConfig.KernelOption, PayloadConfig.InitramfsOption, PayloadConfig.CommandLineOption, CpusConfig.Option, MemoryConfig.Option,
        BootConfig.Option, ConsoleConfig.SerialOption, ConsoleConfig.DebugOption, AcpiConfig.Option, RebootConfig.Option,
        LogConfig.LevelOption, LogConfig.FileOption, LogConfig.FormatOption,
    ];

    /// <summary>Refuses a configuration that says nothing to start, and files that are written and used for something else too.</summary>
    /// <exception cref="VmmException">There is no kernel, or something that is written has the path of something else.</exception>
    public void CheckRunnable()
    {
        if (Payload.Kernel is null)
            throw VmmException.Configuration("there is no kernel to start; name one with --kernel PATH.");
        RequireDistinct("--serial", Serial.Path, "--debug-console", DebugConsole.Path);
        RequireDistinct("--log-file", Log.File, "--serial", Serial.Path);
        RequireDistinct("--log-file", Log.File, "--debug-console", DebugConsole.Path);
        foreach ((string input, string? path) in new[] { ("--kernel", Payload.Kernel), ("--initramfs", Payload.Initramfs) })
        {
            RequireDistinct(input, path, "--serial", Serial.Path);
            RequireDistinct(input, path, "--debug-console", DebugConsole.Path);
            RequireDistinct(input, path, "--log-file", Log.File);
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
