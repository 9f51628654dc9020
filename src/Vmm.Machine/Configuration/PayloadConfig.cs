using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary><c>--kernel PATH</c>, <c>--initramfs PATH</c>, <c>--cmdline STRING</c>: what the guest starts.</summary>
/// <param name="Kernel">A bzImage or an ELF vmlinux; null only in a configuration that is not for running yet.</param>
/// <param name="Initramfs">A cpio archive, compressed or not, or null for none.</param>
/// <param name="CommandLine">The kernel's command line, empty for none. Its length is checked against the kernel when that is loaded.</param>
public sealed record PayloadConfig(string? Kernel = null, string? Initramfs = null, string CommandLine = "")
{
    /// <summary>The section in files and the environment.</summary>
    public static readonly SectionSchema Section = new("payload", ["kernel", "initramfs", "cmdline"], OptionShape.Fields);

    /// <summary>The option for the kernel.</summary>
    public static readonly OptionSchema KernelOption = new(
        "--kernel", "PATH", "The kernel: a bzImage (vmlinuz) or an ELF vmlinux. Needed.", "payload", "kernel", OptionShape.Plain, []);

    /// <summary>The option for the initramfs.</summary>
    public static readonly OptionSchema InitramfsOption = new(
        "--initramfs", "PATH", "The initial RAM file system: a cpio archive, compressed or not.", "payload", "initramfs", OptionShape.Plain, []);

    /// <summary>The option for the command line.</summary>
    public static readonly OptionSchema CommandLineOption = new(
        "--cmdline", "STRING", "The kernel's command line, as in \"console=ttyS0\".", "payload", "cmdline", OptionShape.Plain, []);

    /// <summary>Reads and checks the section.</summary>
    /// <exception cref="VmmException">A path is empty, or the command line has a control character in it.</exception>
    public static PayloadConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        string commandLine = fields.Text("cmdline", "")!;
        foreach (char c in commandLine)
        {
            // A zero ends the command line for the kernel, a newline ends it in the guest's logs: neither was meant.
            if (char.IsControl(c) && c != '\t')
            {
                throw OptionFields.Error(
                    fields.Find("cmdline")!, $"the command line has the control character U+{(int)c:X4} in it; remove it.");
            }
        }

        return new PayloadConfig(fields.Path("kernel"), fields.Path("initramfs"), commandLine);
    }
}
