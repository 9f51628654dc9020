using System.Text;
using Serilog.Core;
using Serilog.Events;
using Serilog.Formatting;
using Vmm.Core.Interop;
using Vmm.Machine.Console;

namespace Vmm.Machine.Logging;

/// <summary>
/// Lines on standard error, each by one write(2). System.Console is not used: it takes part in the terminal's settings, which the
/// serial console has.
/// </summary>
internal sealed unsafe class StandardErrorSink(ITextFormatter formatter) : ILogEventSink
{
    public void Emit(LogEvent logEvent)
    {
        if (StandardStreams.IsMissing(2))
            return;
        var text = new StringWriter();
        formatter.Format(logEvent, text);
        string line = text.ToString();
        if (TerminalMode.IsRaw)
            line = line.Replace("\n", "\r\n", StringComparison.Ordinal);
        byte[] bytes = Encoding.UTF8.GetBytes(line);

        // A log that cannot be written is no reason to stop a machine.
        fixed (byte* start = bytes)
            _ = LibC.write(2, start, (nuint)bytes.Length);
    }
}
