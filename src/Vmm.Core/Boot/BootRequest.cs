namespace Vmm.Core.Boot;

/// <summary>What to load into a guest's memory, and how.</summary>
public sealed record BootRequest
{
    /// <summary>A bzImage or a 64-bit x86 ELF file.</summary>
    public required string KernelPath { get; init; }

    /// <summary>An initramfs in any form that the kernel understands, or null for none.</summary>
    public string? InitramfsPath { get; init; }

    /// <summary>The kernel's command line; passed as UTF-8. Without NUL and line breaks.</summary>
    public string CommandLine { get; init; } = "";

    /// <summary>How to load and enter the kernel.</summary>
    public BootProtocol Protocol { get; init; } = BootProtocol.Auto;

    /// <summary>The guest-physical address of the ACPI RSDP; 0 for none.</summary>
    public ulong AcpiRsdp { get; init; }

    /// <summary>The memory map the kernel is told; kernel and initramfs are only put where it says RAM. At most 128 entries.</summary>
    public required IReadOnlyList<E820Entry> E820 { get; init; }

    /// <summary>
    /// Whether guest memory may hold something already (a restart). False promises that all of it reads as zero, and then memory
    /// that an ELF file wants zeroed is not touched, so that it costs neither time nor host memory.
    /// </summary>
    public bool MemoryIsDirty { get; init; }
}

/// <summary>A kernel that is in memory, ready to be entered.</summary>
/// <param name="Entry">How to enter it.</param>
/// <param name="Protocol">How it was loaded; never <see cref="BootProtocol.Auto"/>.</param>
/// <param name="Description">What was loaded, for people, in one line without a full stop.</param>
/// <param name="FallbackReason">Why <see cref="BootProtocol.Auto"/> did not take the faster way (a sentence), or null.</param>
public sealed record LoadedKernel(BootEntry Entry, BootProtocol Protocol, string Description, string? FallbackReason)
{
    /// <summary>The lowest guest-physical address of the kernel.</summary>
    public ulong KernelStart { get; init; }

    /// <summary>The first guest-physical address past the memory that the kernel needs to start (with its BSS).</summary>
    public ulong KernelEnd { get; init; }

    /// <summary>The guest-physical address of the initramfs, page-aligned; 0 without one.</summary>
    public ulong InitramfsAddress { get; init; }

    /// <summary>The length of the initramfs in bytes; 0 without one.</summary>
    public ulong InitramfsLength { get; init; }
}
