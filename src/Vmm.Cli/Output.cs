using System.Text;
using Vmm.Core;
using Vmm.Core.Interop;
using Vmm.Machine.Console;

namespace Vmm.Cli;

/// <summary>
/// Text on standard output and error, by write(2). System.Console is left alone: it would take the terminal's settings in hand, and
/// costs more at the start than everything else here.
/// </summary>
internal static unsafe class Output
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

    private static int WriteAll(int fd, string text)
    {
        if (StandardStreams.IsMissing(fd))
            return LibC.EBADF;
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        int at = 0;

        // The array is pinned for the call, and the length is what is left of it.
        fixed (byte* start = bytes)
        {
            while (at < bytes.Length)
            {
                nint written = LibC.write(fd, start + at, (nuint)(bytes.Length - at));
                if (written >= 0)
                {
                    at += (int)written;
                    continue;
                }

                int error = LibC.errno;
                if (error == LibC.EAGAIN)
                {
                    var wait = new pollfd { fd = fd, events = LibC.POLLOUT };
                    _ = LibC.poll(&wait, 1, -1);
                }
                else if (error != LibC.EINTR)
                {
                    return error;
                }
            }
        }

        return 0;
    }

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
