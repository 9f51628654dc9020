using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary>What is at the other end of a character device.</summary>
public enum ConsoleBackend
{
    /// <summary>The device is not there at all (debug console only).</summary>
    Off,

    /// <summary>Standard input and output; a terminal is put into raw mode.</summary>
    Tty,

    /// <summary>Output is thrown away and there is no input.</summary>
    Null,

    /// <summary>Output goes to a file, which is emptied first; there is no input.</summary>
    File,

    /// <summary>A new pseudo-terminal, whose path is printed.</summary>
    Pty,

    /// <summary>A Unix socket that listens for one client at a time.</summary>
    Socket,
}

/// <summary><c>--serial</c> and <c>--debug-console</c>: <c>tty|null|file=PATH|pty|socket=PATH</c>.</summary>
/// <param name="Backend">What is at the other end.</param>
/// <param name="Path">The file or socket; null for the others.</param>
public sealed record ConsoleConfig(ConsoleBackend Backend, string? Path = null)
{
    private static readonly (string Word, ConsoleBackend Backend)[] s_words =
    [
        ("off", ConsoleBackend.Off), ("tty", ConsoleBackend.Tty), ("null", ConsoleBackend.Null), ("file", ConsoleBackend.File),
        ("pty", ConsoleBackend.Pty), ("socket", ConsoleBackend.Socket),
    ];

    /// <summary>The serial port's section in files and the environment.</summary>
    public static readonly SectionSchema SerialSection = new(
        "serial", ["tty", "null", "file", "pty", "socket"], OptionShape.Choice);

    /// <summary>The debug console's section in files and the environment.</summary>
    public static readonly SectionSchema DebugSection = new(
        "debug_console", ["off", "tty", "null", "file", "pty", "socket"], OptionShape.Choice);

    /// <summary>The option for the serial port.</summary>
    public static readonly OptionSchema SerialOption = new(
        "--serial", "tty|null|file=PATH|pty|socket=PATH",
        "The other end of the serial port COM1 (ttyS0). Default: tty, this terminal; Ctrl-A h there lists its keys.",
        "serial", null, OptionShape.Choice, ["tty", "null", "file=", "pty", "socket="]);

    /// <summary>The option for the debug console.</summary>
    public static readonly OptionSchema DebugOption = new(
        "--debug-console", "off|tty|null|file=PATH|pty|socket=PATH",
        "The other end of the debug console, port 0xE9, which has no input. Default: off.",
        "debug_console", null, OptionShape.Choice, ["off", "tty", "null", "file=", "pty", "socket="]);

    /// <summary>The virtio console's section in files and the environment.</summary>
    public static readonly SectionSchema VirtioSection = new(
        "console", ["off", "tty", "null", "file", "pty", "socket"], OptionShape.Choice);

    /// <summary>The option for the virtio console.</summary>
    public static readonly OptionSchema VirtioOption = new(
        "--console", "off|tty|null|file=PATH|pty|socket=PATH",
        "The other end of the virtio console (hvc0). Default: off. For tty, give the serial port another end.",
        "console", null, OptionShape.Choice, ["off", "tty", "null", "file=", "pty", "socket="]);

    /// <summary>Reads and checks the section.</summary>
    /// <exception cref="VmmException">A path is missing, or given where there is none to give.</exception>
    public static ConsoleConfig From(OptionFields fields, ConsoleBackend otherwise)
    {
        ArgumentNullException.ThrowIfNull(fields);
        if (fields.All is not [{ } field])
            return new ConsoleConfig(otherwise);

        ConsoleBackend backend = Array.Find(s_words, word => word.Word == field.Key).Backend;
        if (backend is ConsoleBackend.File or ConsoleBackend.Socket)
            return new ConsoleConfig(backend, fields.Path(field.Key));
        if (field.Value is not null || field.Items is not null)
            throw OptionFields.Error(field, $"{field.Key} takes no value; write {field.Key} alone.");
        return new ConsoleConfig(backend);
    }

    /// <summary>The back-end's word in the option.</summary>
    public string Name => s_words[(int)Backend].Word;

    /// <summary>The argument of the option that says the same.</summary>
    public string ToOptionText() => Path is null ? Name : $"{Name}={OptionGrammar.Quote(Path)}";
}
