using Vmm.Core.Interop;
using Vmm.VhostUserBackEnd.Protocol;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd.Rings;

/// <summary>The bitmap that SET_LOG_BASE hands over: bit n is the page of 4 KiB at guest address n * 4096.</summary>
public sealed unsafe class DirtyLog
{
    private const int PageShift = 12;

    private readonly HostMapping _mapping;
    private readonly ulong _offset;
    private readonly ulong _size;

    private DirtyLog(HostMapping mapping, LogDescription description)
    {
        _mapping = mapping;
        _offset = description.MmapOffset;
        _size = description.MmapSize;
    }

    /// <summary>Writes outside of the bitmap that were not logged: the front-end's log is too small.</summary>
    public long Missed => Interlocked.Read(ref _missed);
    private long _missed;

    internal static DirtyLog? TryMap(LogDescription description, FileDescriptor file)
    {
        ulong length = description.MmapSize + description.MmapOffset;
        if (description.MmapSize == 0 || length < description.MmapSize || length > long.MaxValue)
            return null;
        HostMapping? mapping = HostMapping.TryMap((nuint)length, PROT_READ | PROT_WRITE, MAP_SHARED, file.Number);
        return mapping == null ? null : new DirtyLog(mapping, description);
    }

    /// <summary>Marks the pages of a guest's bytes.</summary>
    public void Mark(ulong guestAddress, ulong length)
    {
        if (length == 0)
            return;
        bool held = false;
        try
        {
            _mapping.DangerousAddRef(ref held);
            ulong last = (guestAddress + length - 1) >> PageShift;
            for (ulong page = guestAddress >> PageShift; page <= last; page++)
            {
                if (page / 8 >= _size)
                {
                    Interlocked.Increment(ref _missed);
                    return;
                }
                // Safe: the byte is inside of the mapping, and so is the word around it, because mappings are whole pages.
                byte* at = _mapping.Address + _offset + (page / 8);
                int* word = (int*)((nuint)at & ~(nuint)3);
                int bit = (int)(((nuint)at & 3) * 8) + (int)(page % 8);
                Interlocked.Or(ref *word, 1 << bit);
            }
        }
        catch (ObjectDisposedException)
        {
            // The connection has ended.
        }
        finally
        {
            if (held)
                _mapping.DangerousRelease();
        }
    }

    internal void Close() => _mapping.Dispose();
}
