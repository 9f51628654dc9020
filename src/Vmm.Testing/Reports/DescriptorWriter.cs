using System.Text;
using Vmm.Core.Interop;
using Vmm.Machine.Console;

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
    public override void Flush()
    {
        if (_text.Length == 0)
            return;
        byte[] bytes = Encoding.GetBytes(_text.ToString());
        _text.Clear();
        if (StandardStreams.WriteAll(fd, bytes) is not 0 and int error)
            throw new IOException(LibC.strerror(error));
    }
}
