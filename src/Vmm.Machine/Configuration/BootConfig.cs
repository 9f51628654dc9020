using Vmm.Core;
using Vmm.Core.Boot;

namespace Vmm.Machine.Configuration;

/// <summary><c>--boot protocol=auto|bzimage|unpacked|pvh|linux64</c>.</summary>
/// <param name="Protocol">How the kernel is entered.</param>
public sealed record BootConfig(BootProtocol Protocol = BootProtocol.Auto)
{
    private static readonly (string Word, BootProtocol Value)[] s_words =
    [
        ("auto", BootProtocol.Auto), ("bzimage", BootProtocol.BzImage), ("unpacked", BootProtocol.Unpacked),
        ("pvh", BootProtocol.Pvh), ("linux64", BootProtocol.Linux64),
    ];

    /// <summary>The section in files and the environment.</summary>
    public static readonly SectionSchema Section = new("boot", ["protocol"], OptionShape.Fields);

    /// <summary>The option on the command line.</summary>
    public static readonly OptionSchema Option = new(
        "--boot", "protocol=auto|bzimage|unpacked|pvh|linux64",
        "How the kernel is entered. Default: protocol=auto, the quickest way the file allows.",
        "boot", null, OptionShape.Fields, [.. s_words.Select(word => "protocol=" + word.Word)]);

    /// <summary>The protocol's name as the option has it.</summary>
    public string Name => s_words[(int)Protocol].Word;

    /// <summary>Reads and checks the section.</summary>
    /// <exception cref="VmmException">There is no such protocol.</exception>
    public static BootConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        return new BootConfig(fields.Word("protocol", BootProtocol.Auto, s_words));
    }

    /// <summary>The argument of <c>--boot</c> that says the same.</summary>
    public string ToOptionText() => $"protocol={Name}";
}
