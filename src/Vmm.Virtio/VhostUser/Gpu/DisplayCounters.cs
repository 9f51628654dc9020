namespace Vmm.Virtio.VhostUser.Gpu;

/// <summary>What happened between a back-end and its display. The display's thread counts, any thread reads.</summary>
public sealed class DisplayCounters
{
    private long _connects, _breaks, _messages, _scanouts, _updates, _updateBytes, _dmabufs, _cursors, _dropped, _screenshots, _size;

    /// <summary>Connections that a back-end was given.</summary>
    public long Connects => Volatile.Read(ref _connects);

    /// <summary>Those of them that were ended because the back-end broke a rule.</summary>
    public long Breaks => Volatile.Read(ref _breaks);

    /// <summary>Messages of the back-end.</summary>
    public long Messages => Volatile.Read(ref _messages);

    /// <summary>Times that the size of the picture was set.</summary>
    public long Scanouts => Volatile.Read(ref _scanouts);

    /// <summary>Rectangles of the picture that came, and those of dma-bufs that were told of.</summary>
    public long Updates => Volatile.Read(ref _updates);

    /// <summary>Bytes of pixels that came.</summary>
    public long UpdateBytes => Volatile.Read(ref _updateBytes);

    /// <summary>Dma-bufs that came, and were closed.</summary>
    public long Dmabufs => Volatile.Read(ref _dmabufs);

    /// <summary>Times that the cursor moved or changed.</summary>
    public long Cursors => Volatile.Read(ref _cursors);

    /// <summary>Scanouts and updates for displays that there are not, for pictures that are off or too large, or of dma-bufs.</summary>
    public long Dropped => Volatile.Read(ref _dropped);

    /// <summary>Times that the picture was written to a file.</summary>
    public long Screenshots => Volatile.Read(ref _screenshots);

    /// <summary>Of the picture, in pixels; 0 where it is off.</summary>
    public int Width => (int)(Volatile.Read(ref _size) >> 32);

    /// <summary>Of the picture, in pixels; 0 where it is off.</summary>
    public int Height => (int)Volatile.Read(ref _size);

    internal void Report(ICounterSink sink)
    {
        sink.Add("display_connects", Connects);
        sink.Add("display_breaks", Breaks);
        sink.Add("display_messages", Messages);
        sink.Add("display_scanouts", Scanouts);
        sink.Add("display_updates", Updates);
        sink.Add("display_update_bytes", UpdateBytes);
        sink.Add("display_dmabufs", Dmabufs);
        sink.Add("display_cursors", Cursors);
        sink.Add("display_dropped", Dropped);
        sink.Add("display_screenshots", Screenshots);
        sink.Add("display_width", Width);
        sink.Add("display_height", Height);
    }

    internal void CountConnect() => Interlocked.Increment(ref _connects);

    internal void CountBreak() => Interlocked.Increment(ref _breaks);

    internal void CountMessage() => Interlocked.Increment(ref _messages);

    internal void CountScanout() => Interlocked.Increment(ref _scanouts);

    internal void CountUpdate(long bytes)
    {
        Interlocked.Increment(ref _updates);
        Interlocked.Add(ref _updateBytes, bytes);
    }

    internal void CountDmabuf() => Interlocked.Increment(ref _dmabufs);

    internal void CountCursor() => Interlocked.Increment(ref _cursors);

    internal void CountDropped() => Interlocked.Increment(ref _dropped);

    internal void CountScreenshot() => Interlocked.Increment(ref _screenshots);

    // Both at once: a reader must not see one of an old and one of a new size.
    internal void SetSize(int width, int height) => Volatile.Write(ref _size, ((long)width << 32) | (uint)height);
}
