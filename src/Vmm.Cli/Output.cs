using System.Text;
using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Machine.Console;

namespace Vmm.Cli;

/// <summary>
/// Text on standard output and error, by write(2). System.Console is left alone: it would take the terminal's settings in hand, and
/// costs more at the start than everything else here.
/// </summary>
internal static class Output
{
    /// <summary>Writes to standard output.</summary>
    /// <exception cref="VmmException">It is closed, or cannot be written.</exception>
    internal static void Write(string text)
    {
        int error = WriteAll(1, text);
        if (error != 0)
            throw VmmException.Host($"cannot write to standard output: {LibC.strerror(error)}.");
    }

    /// <summary>Writes one line to standard error: "vmm: " and the message. That it may fail cannot be told to anybody.</summary>
    internal static void Error(string message)
    {
        string newline = TerminalMode.IsRaw ? "\r\n" : "\n";
        _ = WriteAll(2, $"vmm: {OneLine(message)}{newline}");
    }

    /// <summary>Writes text with lines of its own to standard error, such as a stack trace.</summary>
    internal static void Details(string text) => _ = WriteAll(2, text + "\n");

    private static int WriteAll(int fd, string text) =>
        StandardStreams.IsMissing(fd) ? LibC.EBADF : StandardStreams.WriteAll(fd, Encoding.UTF8.GetBytes(text));

    private static string OneLine(string message)
    {
        if (message.AsSpan().IndexOfAnyInRange('\0', '\x1f') < 0)
            return message;
        var line = new StringBuilder(message.Length);
        foreach (char c in message)
            line.Append(char.IsControl(c) ? ' ' : c);
        return line.ToString();
    }
}
