using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Vmm.Core;

namespace Vmm.Virtio.VhostUser.Gpu;

/// <summary>
/// What is on a display, kept for a file that shows it. Of the display's thread. Its memory is that of the largest picture so far, and never
/// more than <see cref="MostPixels"/>.
/// </summary>
internal sealed class Picture
{
    /// <summary>The most pixels of a picture that is kept: 64 MiB of them, 4096 by 4096 for one.</summary>
    public const int MostPixels = 16 << 20;

    private const int BytesOfPixel = 3;

    private readonly string _path;
    private readonly string _partPath;
    private readonly int _interval;
    private uint[] _pixels = [];
    private int _width, _height;
    private int _nextWidth, _nextHeight;
    private long _nextWriting;
    private bool _failed;

    /// <summary>Begins with nothing.</summary>
    /// <param name="path">The file that shows it.</param>
    /// <param name="interval">At least so long between two writings. Milliseconds.</param>
    /// <exception cref="VmmException">There can be no such file.</exception>
    internal Picture(string path, int interval)
    {
        (_path, _partPath, _interval) = (path, path + ".part", interval);
        try
        {
            Create().Dispose();
            File.Delete(_partPath);
            if (Directory.Exists(path))
                throw new IOException("it is a directory");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw VmmException.Configuration($"Cannot write a screenshot to {path}: {e.Message}. Correct screenshot=.");
        }
    }

    /// <summary>Whether it has changed since it was written.</summary>
    internal bool IsDirty { get; private set; }

    /// <summary>When it may be written again, in <see cref="Environment.TickCount64"/>.</summary>
    internal long NextWriting => _nextWriting;

    /// <summary>Whether what comes is kept: the picture is on, and not too large.</summary>
    internal bool IsOn => _nextWidth > 0;

    /// <summary>
    /// Says how large it is from the next pixels on. Until these come, what is there stays: a driver that ends has switched its display off by then.
    /// </summary>
    /// <param name="width">Pixels; 0 where it is off.</param>
    /// <param name="height">Pixels.</param>
    internal void SetSize(int width, int height) =>
        (_nextWidth, _nextHeight) = width > 0 && height > 0 && (long)width * height <= MostPixels ? (width, height) : (0, 0);

    /// <summary>Pixels are to come.</summary>
    internal void Begin()
    {
        if ((_nextWidth, _nextHeight) == (_width, _height))
            return;
        int count = _nextWidth * _nextHeight;
        if (_pixels.Length < count)
            _pixels = new uint[count];
        else
            _pixels.AsSpan(0, count).Clear();
        (_width, _height) = (_nextWidth, _nextHeight);
    }

    /// <summary>Takes a part of a line, as far as it is inside.</summary>
    /// <param name="x">Where it begins.</param>
    /// <param name="y">Which line.</param>
    /// <param name="pixels">In x8r8g8b8.</param>
    internal void Put(uint x, ulong y, ReadOnlySpan<uint> pixels)
    {
        if (x >= (uint)_width || y >= (uint)_height)
            return;
        pixels[..Math.Min(pixels.Length, _width - (int)x)].CopyTo(_pixels.AsSpan(((int)y * _width) + (int)x));
        IsDirty = true;
    }

    /// <summary>Writes the file, under another name first, so that there is always a whole one.</summary>
    /// <param name="counters">Counts it.</param>
    /// <param name="say">Told where it cannot be written: then it is not tried again.</param>
    internal void Write(DisplayCounters counters, Action<string> say)
    {
        IsDirty = false;
        if (_failed)
            return;
        try
        {
            using (FileStream file = Create())
                Write(file);
            File.Move(_partPath, _path, overwrite: true);
            // From its end on: a slow file system is not written to all the time.
            _nextWriting = Environment.TickCount64 + _interval;
            counters.CountScreenshot();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _failed = true;
            say($"its screenshot cannot be written to {_path} and is given up: {e.Message}");
        }
    }

    private FileStream Create()
    {
        // Nothing that is there is opened, as it may be a link to somewhere else.
        File.Delete(_partPath);
        return new FileStream(_partPath, FileMode.CreateNew, FileAccess.Write);
    }

    /// <summary>Writes it as a PPM (Netpbm's P6).</summary>
    private void Write(Stream file)
    {
        file.Write(Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"P6\n{_width} {_height}\n255\n")));
        byte[] line = new byte[_width * BytesOfPixel];
        for (int y = 0; y < _height; y++)
        {
            ReadOnlySpan<byte> pixels = MemoryMarshal.AsBytes(_pixels.AsSpan(y * _width, _width));
            for (int x = 0; x < _width; x++)
            {
                ReadOnlySpan<byte> pixel = pixels.Slice(x * sizeof(uint), sizeof(uint));
                (line[x * BytesOfPixel], line[(x * BytesOfPixel) + 1], line[(x * BytesOfPixel) + 2]) = (pixel[2], pixel[1], pixel[0]);
            }
            file.Write(line);
        }
    }
}
