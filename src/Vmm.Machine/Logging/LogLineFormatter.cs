using System.Buffers;
using System.Text;
using System.Text.Json;
using Serilog.Events;
using Serilog.Formatting;
using Vmm.Machine.Configuration;

namespace Vmm.Machine.Logging;

/// <summary>One line per event: for people, or a JSON object with time, level, message and, where there is one, exception.</summary>
internal sealed class LogLineFormatter(LogFormat format, bool forFile) : ITextFormatter
{
    private const string Time = "yyyy-MM-ddTHH:mm:ss.fffZ";

    public void Format(LogEvent logEvent, TextWriter output)
    {
        string message = logEvent.MessageTemplate.Text;
        output.Write(format == LogFormat.Json ? Json(logEvent, message) : Text(logEvent, message));
        output.Write('\n');
    }

    private string Text(LogEvent logEvent, string message)
    {
        string level = Name(logEvent.Level);
        var line = new StringBuilder(forFile ? $"{logEvent.Timestamp.UtcDateTime.ToString(Time)} {level} " : $"vmm: {level}: ");

        // A guest may have had its hand in the text: it must not make lines of its own, nor drive a terminal.
        foreach (char c in message)
            line.Append(char.IsControl(c) ? ' ' : c);
        if (logEvent.Exception is { } exception)
            line.Append(": ").Append(exception.ToString().ReplaceLineEndings(" "));
        return line.ToString();
    }

    private static string Json(LogEvent logEvent, string message)
    {
        var buffer = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(buffer))
        {
            json.WriteStartObject();
            json.WriteString("time", logEvent.Timestamp.UtcDateTime.ToString(Time));
            json.WriteString("level", Name(logEvent.Level));
            json.WriteString("message", message);
            if (logEvent.Exception is { } exception)
                json.WriteString("exception", exception.ToString());
            json.WriteEndObject();
        }

        return Encoding.UTF8.GetString(buffer.WrittenSpan);
    }

    private static string Name(LogEventLevel level) => level switch
    {
        LogEventLevel.Verbose => "trace",
        LogEventLevel.Debug => "debug",
        LogEventLevel.Information => "info",
        LogEventLevel.Warning => "warn",
        _ => "error",
    };
}
