using System.Runtime.CompilerServices;
using Serilog;
using Serilog.Core;
using Serilog.Events;
using Serilog.Parsing;
using Vmm.Core;
using Vmm.Machine.Configuration;

namespace Vmm.Machine.Logging;

/// <summary>
/// The program's log, and the only place that knows Serilog. Nothing of Serilog is touched before the first line that is written, or
/// before a log file has to be opened: a quiet run pays for a comparison per line. From any thread.
/// </summary>
public sealed class VmLog : IDisposable
{
    private readonly LogConfig _config;
    private readonly object _gate = new();
    private Logger? _logger;

    private VmLog(LogConfig config) => _config = config;

    /// <summary>A log that takes nothing but errors and warnings, on standard error.</summary>
    public static VmLog Quiet { get; } = new(new LogConfig());

    /// <summary>Makes a log. A log file is opened here, before anything depends on it.</summary>
    /// <exception cref="VmmException">The log file cannot be written: of kind Configuration, since another path was meant.</exception>
    public static VmLog Open(LogConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        var log = new VmLog(config);
        if (config.File is { } path)
        {
            CheckWritable(path);
            log.Get();
        }

        return log;
    }

    /// <summary>Whether a line of this level is written; ask before making an expensive one.</summary>
    public bool IsEnabled(LogLevel level) => level <= _config.Level;

    /// <summary>What ends the machine or loses something.</summary>
    public void Error(string message, Exception? exception = null) => Write(LogLevel.Error, message, exception);

    /// <summary>What somebody should look at.</summary>
    public void Warn(string message) => Write(LogLevel.Warn, message);

    /// <summary>What happens to the machine.</summary>
    public void Info(string message) => Write(LogLevel.Info, message);

    /// <summary>What the program does.</summary>
    public void Debug(string message) => Write(LogLevel.Debug, message);

    /// <summary>What the guest does.</summary>
    public void Trace(string message) => Write(LogLevel.Trace, message);

    /// <summary>Writes a line, if its level is written at all. Never throws.</summary>
    public void Write(LogLevel level, string message, Exception? exception = null)
    {
        if (IsEnabled(level))
            WriteEnabled(level, message, exception);
    }

    /// <summary>Writes what is there and closes the file.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            _logger?.Dispose();
            _logger = null;
        }
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private void WriteEnabled(LogLevel level, string message, Exception? exception)
    {
        // The message is one piece of text and no template: braces in it mean nothing, and Serilog needs no reflection to capture values.
        Get().Write(new LogEvent(DateTimeOffset.Now, ToSerilog(level), exception, new MessageTemplate(message, [new TextToken(message)]), []));
    }

    private Logger Get()
    {
        lock (_gate)
            return _logger ??= Create();
    }

    private Logger Create()
    {
        var formatter = new LogLineFormatter(_config.Format, forFile: _config.File is not null);
        LoggerConfiguration configuration = new LoggerConfiguration().MinimumLevel.Is(ToSerilog(_config.Level));
        return _config.File is { } path
            ? configuration.WriteTo.File(formatter, path, fileSizeLimitBytes: null).CreateLogger()
            : configuration.WriteTo.Sink(new StandardErrorSink(formatter)).CreateLogger();
    }

    private static void CheckWritable(string path)
    {
        try
        {
            // Serilog would go on without a word, and create the directories of a mistyped path.
            using var probe = new FileStream(path, FileMode.Append, FileAccess.Write, FileShare.ReadWrite);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            throw VmmException.Configuration(
                $"--log-file: cannot write to {OptionGrammar.Show(path)}: {e.Message.ReplaceLineEndings(" ")} Name a file that can be written.", e);
        }
    }

    private static LogEventLevel ToSerilog(LogLevel level) => level switch
    {
        LogLevel.Error => LogEventLevel.Error,
        LogLevel.Warn => LogEventLevel.Warning,
        LogLevel.Info => LogEventLevel.Information,
        LogLevel.Debug => LogEventLevel.Debug,
        _ => LogEventLevel.Verbose,
    };
}
