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

    /// <summary>Refuses a configuration that says nothing to start, and consoles that get in each other's way.</summary>
    /// <exception cref="VmmException">There is no kernel, or two consoles have the same file or socket.</exception>
    public void CheckRunnable()
    {
        if (Payload.Kernel is null)
            throw VmmException.Configuration("there is no kernel to start; name one with --kernel PATH.");
        if (Serial.Path is { } path && path == DebugConsole.Path)
            throw VmmException.Configuration($"--serial and --debug-console both have {OptionGrammar.Show(path)}; give each its own.");
    }
}
