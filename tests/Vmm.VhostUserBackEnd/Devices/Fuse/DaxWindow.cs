using Vmm.Core.Interop;
using Vmm.VhostUserBackEnd.Protocol;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd.Fuse;

/// <summary>
/// The DAX window of virtio-fs (VIRTIO 1.3 §5.11.6) on top of SHMEM_MAP and SHMEM_UNMAP, which know neither replacing nor splitting: a mapping
/// that is in the way is unmapped whole and what is left of it is mapped again. Its owner's lock covers it.
/// </summary>
/// <remarks>
/// A guest maps 2 MiB at a time whatever the file's size, but what lies beyond a file's end must not be mapped. So an extent is what the guest
/// asked for, and it has as many mappings as the file has had ends; each new end adds one.
/// </remarks>
internal sealed class DaxWindow
{
    internal const int PageShift = 12;

    private const ulong PageSize = 1 << PageShift;
    private const byte ShmId = 0;

    private readonly ulong _size;
    private readonly List<Extent> _extents = [];

    internal DaxWindow(ulong size) => _size = size;

    internal int Extents => _extents.Count;

    /// <summary>All mappings that the front-end has now.</summary>
    internal IEnumerable<ShmemMapping> Mappings
    {
        get
        {
            foreach (Extent extent in _extents)
            {
                foreach (ShmemMapping mapping in extent.Mappings)
                    yield return mapping;
            }
        }
    }

    /// <summary>Maps a part of a file in place of whatever is there.</summary>
    /// <param name="channel">Who does it.</param>
    /// <param name="file">Becomes the window's.</param>
    /// <param name="inode">Names the file to <see cref="Grow"/>.</param>
    /// <param name="fileSize">In bytes.</param>
    /// <param name="fileOffset">Of whole pages.</param>
    /// <param name="offset">In the window, of whole pages.</param>
    /// <param name="length">In bytes.</param>
    /// <param name="writable">Whether the guest may write.</param>
    /// <returns>0 or a negative errno.</returns>
    internal int Map(BackEndChannel channel, FileDescriptor file, ulong inode, ulong fileSize, ulong fileOffset, ulong offset, ulong length, bool writable)
    {
        if (!InWindow(offset, length) || length == 0 || offset % PageSize != 0 || fileOffset % PageSize != 0 || fileOffset + length < fileOffset)
        {
            file.Dispose();
            return -EINVAL;
        }
        int error = Unmap(channel, offset, length);
        if (error != 0)
        {
            file.Dispose();
            return error;
        }
        var extent = new Extent(new SharedFile(file), inode, fileOffset, offset, length, writable);
        error = extent.GrowTo(channel, fileSize);
        if (error == 0)
            _extents.Add(extent);
        else
            extent.Drop(channel);
        return error;
    }

    /// <summary>Unmaps a range; what other mappings have outside of it stays.</summary>
    internal int Unmap(BackEndChannel channel, ulong offset, ulong length)
    {
        if (!InWindow(offset, length))
            return -EINVAL;
        ulong end = RoundUp(offset + length);
        int error = 0;
        foreach (Extent extent in _extents.ToArray())
        {
            if (extent.Offset >= end || RoundUp(extent.Offset + extent.Length) <= offset)
                continue;
            _extents.Remove(extent);
            foreach (Extent left in extent.Without(offset, end))
            {
                left.File.Hold();
                _extents.Add(left);
            }
            ulong size = extent.MappedSize;
            error = First(error, extent.Drop(channel));
            foreach (Extent left in _extents)
            {
                if (left.Mappings.Count == 0 && left.File == extent.File)
                    error = First(error, left.GrowTo(channel, size));
            }
        }
        return error;
    }

    internal int UnmapAll(BackEndChannel? channel)
    {
        int error = 0;
        foreach (Extent extent in _extents)
            error = First(error, extent.Drop(channel));
        _extents.Clear();
        return error;
    }

    /// <summary>A file may have become larger: what guests believe to be mapped is.</summary>
    internal int Grow(BackEndChannel channel, ulong inode, ulong fileSize)
    {
        int error = 0;
        foreach (Extent extent in _extents)
        {
            if (extent.Inode == inode)
                error = First(error, extent.GrowTo(channel, fileSize));
        }
        return error;
    }

    private static int First(int error, int next) => error != 0 ? error : next;

    private static ulong RoundUp(ulong value) => (value + PageSize - 1) & ~(PageSize - 1);

    private bool InWindow(ulong offset, ulong length) => offset <= _size && length <= _size - offset;

    /// <summary>A file that several extents share after a split.</summary>
    private sealed class SharedFile
    {
        private readonly FileDescriptor _file;
        private int _holders = 1;

        internal SharedFile(FileDescriptor file) => _file = file;

        internal int Number => _file.Number;

        internal void Hold() => _holders++;

        internal void LetGo()
        {
            if (--_holders == 0)
                _file.Dispose();
        }
    }

    /// <summary>What one SETUPMAPPING asked for, or what later ones left of it.</summary>
    private sealed record Extent(SharedFile File, ulong Inode, ulong FileOffset, ulong Offset, ulong Length, bool Writable)
    {
        internal List<ShmemMapping> Mappings { get; } = [];

        /// <summary>How large the file was when it was last seen, as far as this extent goes.</summary>
        internal ulong MappedSize { get; private set; }

        internal int GrowTo(BackEndChannel channel, ulong fileSize)
        {
            ulong end = Math.Min(fileSize, FileOffset + Length);
            ulong from = FileOffset;
            if (Mappings.Count > 0)
                from = RoundUp(Mappings[^1].FdOffset + Mappings[^1].Size);
            MappedSize = Math.Max(MappedSize, end);
            if (end <= from)
                return 0;
            var mapping = new ShmemMapping(ShmId, from, Offset + (from - FileOffset), end - from, Writable ? ShmemMapping.ReadWrite : 0);
            int error = ToError(channel.Map(mapping, File.Number));
            if (error == 0)
                Mappings.Add(mapping);
            return error;
        }

        /// <summary>Unmaps all of it and lets its file go.</summary>
        internal int Drop(BackEndChannel? channel)
        {
            int error = 0;
            foreach (ShmemMapping mapping in Mappings)
            {
                if (channel != null)
                    error = First(error, ToError(channel.Unmap(mapping with { FdOffset = 0, Flags = 0 })));
            }
            Mappings.Clear();
            File.LetGo();
            return error;
        }

        /// <summary>What is left of it, without mappings as yet, when the pages from start to end are taken out.</summary>
        internal IEnumerable<Extent> Without(ulong start, ulong end)
        {
            if (Offset < start)
                yield return new Extent(File, Inode, FileOffset, Offset, start - Offset, Writable);
            if (Offset + Length > end)
                yield return new Extent(File, Inode, FileOffset + (end - Offset), end, Offset + Length - end, Writable);
        }

        private static int ToError(ChannelAnswer answer) => answer.Result switch
        {
            ChannelResult.Answered when answer.Value == 0 => 0,
            ChannelResult.Sent => 0,
            // QEMU says 1 for everything, and a window that is full is the likeliest.
            ChannelResult.Answered when answer.Value is > 1 and < 4096 => -(int)answer.Value,
            ChannelResult.Answered => -ENOMEM,
            _ => -EIO,
        };
    }
}
