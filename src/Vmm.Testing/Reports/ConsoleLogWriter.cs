using System.Globalization;
using System.Text;
using Vmm.Core;

namespace Vmm.Testing.Reports;

/// <summary>
/// The whole console of an attempt as a file, every line with its time since the attempt's start: <c>[   12.345] text</c>. Each line is
/// handed to the kernel at once, so a run that is killed has them. Not for several threads at a time.
/// </summary>
public sealed class ConsoleLogWriter : IDisposable
{
    /// <summary>What a log may take at most, unless said otherwise, in bytes: a guest that prints without end must not fill a disk.</summary>
    public const long DefaultLimit = 64L << 20;

    /// <summary>A line that is longer is broken: nobody waits for its end with all of it in memory.</summary>
    private const int LineBytes = 16 * 1024;

    private readonly FileStream _file;
    private readonly long _limit;
    private readonly StringBuilder _text = new();
    private readonly byte[] _pending = new byte[LineBytes];
    private byte[] _bytes = new byte[4096];
    private int _pendingLength;
    private bool _pendingBroken;
    private TimeSpan _pendingAt;
    private long _written;
    private Exception? _error;

    /// <summary>Makes the file, and its directory. One that is there with this name is replaced.</summary>
    /// <param name="directory">Where to.</param>
    /// <param name="test">The test's name; its file is named by <see cref="ConsoleLogName"/>.</param>
    /// <param name="attempt">1 for the first; each has its own file.</param>
    /// <param name="limit">How long it gets at most, in bytes; a note about the rest comes on top.</param>
    /// <exception cref="VmmException">It cannot be made.</exception>
    public ConsoleLogWriter(string directory, string test, int attempt = 1, long limit = DefaultLimit)
    {
        ArgumentNullException.ThrowIfNull(directory);
        Path = System.IO.Path.Combine(directory, ConsoleLogName.Of(test, attempt));
        _limit = limit;
        try
        {
            Directory.CreateDirectory(directory);

            // A file that somebody still reads stays theirs, and a link there leads nowhere.
            File.Delete(Path);
            _file = new FileStream(Path, FileMode.CreateNew, FileAccess.Write, FileShare.Read | FileShare.Delete, bufferSize: 0);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            throw VmmException.Host($"Cannot make the console log {Path}: {e.Message.TrimEnd('.')}; give another directory.", e);
        }
    }

    /// <summary>The file.</summary>
    public string Path { get; }

    /// <summary>How many lines did not find room.</summary>
    public long LinesLeftOut { get; private set; }

    /// <summary>What could not be written; null as long as all could. The log ends there, the test goes on.</summary>
    public string? Error => _error is null ? null : $"The console log {Path} is incomplete: {_error.Message}";

    /// <summary>Adds a line.</summary>
    /// <param name="at">When it came, since the attempt's start.</param>
    /// <param name="line">Without its end; what would be lines of their own in it, and other control characters but tabs, are U+FFFD.</param>
    public void Line(TimeSpan at, string line)
    {
        ArgumentNullException.ThrowIfNull(line);
        Flush();
        Put(at, line);
    }

    /// <summary>Adds console output as it comes; lines that are not ended yet wait for their end, and have the time of their beginning.</summary>
    public void Bytes(TimeSpan at, ReadOnlySpan<byte> output)
    {
        while (!output.IsEmpty)
        {
            if (_pendingLength == 0)
                _pendingAt = at;
            int end = output.IndexOf((byte)'\n');
            ReadOnlySpan<byte> part = end < 0 ? output : output[..end];
            int room = LineBytes - _pendingLength;
            if (part.Length > room)
            {
                part[..room].CopyTo(_pending.AsSpan(_pendingLength));
                _pendingLength = LineBytes;
                Flush();
                _pendingBroken = true;
                output = output[room..];
                continue;
            }

            part.CopyTo(_pending.AsSpan(_pendingLength));
            _pendingLength += part.Length;
            if (end < 0)
                return;

            // The rest of a line that was broken just at its end is no line.
            if (_pendingLength > 0 || !_pendingBroken)
                PutPending();
            _pendingBroken = false;
            output = output[(end + 1)..];
        }
    }

    /// <summary>Writes a line that has no end yet, and closes the file.</summary>
    public void Dispose()
    {
        if (!_file.CanWrite)
            return;
        Flush();
        if (LinesLeftOut > 0)
            Write(string.Create(CultureInfo.InvariantCulture, $"[the console log ends here: it has reached its limit of {_limit} bytes; {GuestText.Count((int)Math.Min(LinesLeftOut, int.MaxValue), "more line")} left out]\n"));
        _file.Dispose();
    }

    private void Flush()
    {
        if (_pendingLength > 0)
            PutPending();
    }

    private void PutPending()
    {
        ReadOnlySpan<byte> line = _pending.AsSpan(0, _pendingLength);
        _pendingLength = 0;
        Put(_pendingAt, Encoding.UTF8.GetString(line.EndsWith((byte)'\r') ? line[..^1] : line));
    }

    private void Put(TimeSpan at, string line)
    {
        if (_error is not null)
            return;
        if (LinesLeftOut > 0)
        {
            LinesLeftOut++;
            return;
        }

        _text.Clear();
        _text.Append(CultureInfo.InvariantCulture, $"[{Math.Max(0, at.TotalSeconds),9:F3}] ");
        foreach (char c in line)
            _text.Append((char.IsControl(c) && c != '\t') || c is '\u2028' or '\u2029' ? '\uFFFD' : c);
        _text.Append('\n');
        if (_written + Encoding.UTF8.GetMaxByteCount(_text.Length) > _limit && _written + Encoding.UTF8.GetByteCount(_text.ToString()) > _limit)
        {
            LinesLeftOut = 1;
            Note();
            return;
        }

        Write(_text.ToString());
    }

    /// <summary>At once, too: a killed run would not say why its log ends.</summary>
    private void Note() => Write(string.Create(CultureInfo.InvariantCulture, $"[the limit of {_limit} bytes is reached; what follows is left out]\n"));

    private void Write(string text)
    {
        int most = Encoding.UTF8.GetMaxByteCount(text.Length);
        if (_bytes.Length < most)
            _bytes = new byte[most];
        int length = Encoding.UTF8.GetBytes(text, _bytes);
        try
        {
            _file.Write(_bytes, 0, length);
            _written += length;
        }
        catch (IOException e)
        {
            _error = e;
        }
    }
}
