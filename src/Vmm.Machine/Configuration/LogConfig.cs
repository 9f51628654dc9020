using Vmm.Core;

namespace Vmm.Machine.Configuration;

/// <summary>How much is logged.</summary>
public enum LogLevel
{
    /// <summary>What ends the machine or loses something.</summary>
    Error,

    /// <summary>What somebody should look at.</summary>
    Warn,

    /// <summary>What happens to the machine.</summary>
    Info,

    /// <summary>What the program does.</summary>
    Debug,

    /// <summary>What the guest does.</summary>
    Trace,
}

/// <summary>How a line of the log looks.</summary>
public enum LogFormat
{
    /// <summary>For people.</summary>
    Text,

    /// <summary>One JSON object per line.</summary>
    Json,
}

/// <summary><c>--log-level</c>, <c>--log-file</c>, <c>--log-format</c>.</summary>
/// <param name="Level">The least important lines that are written.</param>
/// <param name="File">The file that is appended to, or null for standard error.</param>
/// <param name="Format">How a line looks.</param>
public sealed record LogConfig(LogLevel Level = LogLevel.Warn, string? File = null, LogFormat Format = LogFormat.Text)
{
    private static readonly (string Word, LogLevel Value)[] s_levels =
    [
        ("error", LogLevel.Error), ("warn", LogLevel.Warn), ("info", LogLevel.Info), ("debug", LogLevel.Debug), ("trace", LogLevel.Trace),
    ];

    private static readonly (string Word, LogFormat Value)[] s_formats = [("text", LogFormat.Text), ("json", LogFormat.Json)];

    /// <summary>The section in files and the environment.</summary>
    public static readonly SectionSchema Section = new("log", ["level", "file", "format"], OptionShape.Fields);

    /// <summary>The option for the level.</summary>
    public static readonly OptionSchema LevelOption = new(
        "--log-level", "error|warn|info|debug|trace", "The least important lines to log. Default: warn.",
        "log", "level", OptionShape.Plain, ["error", "warn", "info", "debug", "trace"]);

    /// <summary>The option for the file.</summary>
    public static readonly OptionSchema FileOption = new(
        "--log-file", "PATH", "The file to append the log to. Default: standard error.", "log", "file", OptionShape.Plain, []);

    /// <summary>The option for the format.</summary>
    public static readonly OptionSchema FormatOption = new(
        "--log-format", "text|json", "How a line of the log looks. Default: text.", "log", "format", OptionShape.Plain, ["text", "json"]);

    /// <summary>The level's word in the option.</summary>
    public string LevelName => s_levels[(int)Level].Word;

    /// <summary>The format's word in the option.</summary>
    public string FormatName => s_formats[(int)Format].Word;

    /// <summary>Reads and checks the section.</summary>
    /// <exception cref="VmmException">There is no such level or format, or the path is empty.</exception>
    public static LogConfig From(OptionFields fields)
    {
        ArgumentNullException.ThrowIfNull(fields);
        return new LogConfig(fields.Word("level", LogLevel.Warn, s_levels), fields.Path("file"), fields.Word("format", LogFormat.Text, s_formats));
    }
}
