using System.Text;
using Vmm.Core.Interop;

namespace Vmm.Testing.Reports;

/// <summary>
/// Text to a descriptor of the process, by write(2): standard output without System.Console, which would take the terminal's settings in hand.
/// What is written goes out at <see cref="Flush"/>, in one piece where the kernel takes it so. Not for several threads at a time.
/// </summary>
/// <param name="fd">The descriptor. Left open.</param>
public sealed class DescriptorWriter(int fd) : TextWriter
{
    private readonly StringBuilder _text = new();

    /// <inheritdoc/>
    public override Encoding Encoding { get; } = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false);

    /// <inheritdoc/>
    public override void Write(char value) => _text.Append(value);

    /// <inheritdoc/>
    public override void Write(string? value) => _text.Append(value);

    /// <inheritdoc/>
    public override void Write(char[] buffer, int index, int count) => _text.Append(buffer, index, count);

    /// <inheritdoc/>
    public override void Write(ReadOnlySpan<char> buffer) => _text.Append(buffer);

    /// <summary>Hands everything to the kernel.</summary>
    /// <exception cref="IOException">It does not take it: the reader is gone, the disk is full.</exception>
    public override unsafe void Flush()
    {
        if (_text.Length == 0)
            return;
        byte[] bytes = Encoding.GetBytes(_text.ToString());
        _text.Clear();
        int at = 0;

        // The array is pinned for the calls, and the length is what is left of it.
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
                    // Somebody else who has this terminal or pipe has made it non-blocking.
                    var wait = new pollfd { fd = fd, events = LibC.POLLOUT };
                    _ = LibC.poll(&wait, 1, -1);
                }
                else if (error != LibC.EINTR)
                {
                    throw new IOException(LibC.strerror(error));
                }
            }
        }
    }
}
