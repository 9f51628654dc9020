using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd.Fuse;

// Requests about names and attributes.
public sealed unsafe partial class FuseServer
{
    private const uint SetMode = 1;
    private const uint SetUid = 2;
    private const uint SetGid = 4;
    private const uint SetSize = 8;
    private const uint SetAccessTime = 16;
    private const uint SetModifyTime = 32;
    private const uint SetAccessTimeNow = 128;
    private const uint SetModifyTimeNow = 256;
    private const long UtimeNow = (1 << 30) - 1;
    private const long UtimeOmit = (1 << 30) - 2;

    private int Lookup(Node parent, ReadOnlySpan<byte> name, FuseWriter result, BackEndChannel? channel)
    {
        if (!IsName(name))
            return -EINVAL;
        int error = HostFiles.OpenAt(parent.Descriptor.Number, name, HostFiles.O_PATH | HostFiles.O_NOFOLLOW, 0, out FileDescriptor? file);
        if (file == null)
            return error;
        error = HostFiles.Stat(file.Number, out FuseAttributes attributes);
        if (error != 0)
        {
            file.Dispose();
            return error;
        }
        Node node;
        if (_ids.TryGetValue((attributes.Device, attributes.Inode), out ulong id))
        {
            file.Dispose();
            node = _nodes[id];
        }
        else
        {
            node = new Node(++_nextId, file, attributes.Device, attributes.Inode);
            _nodes.Add(node.Id, node);
            _ids.Add((attributes.Device, attributes.Inode), node.Id);
        }
        node.Lookups++;
        Seen(node, attributes, channel);
        result.U64(node.Id).U64(0).U64(CacheSeconds).U64(CacheSeconds).U32(0).U32(0);
        attributes.Write(result);
        return 0;
    }

    /// <summary>Whatever size the guest is about to be told has to be mapped where it has asked for it.</summary>
    private void Seen(Node node, in FuseAttributes attributes, BackEndChannel? channel)
    {
        if (channel != null)
            _window?.Grow(channel, node.Inode, attributes.Size);
    }

    private int GetAttributes(Node node, FuseWriter result, BackEndChannel? channel)
    {
        int error = HostFiles.Stat(node.Descriptor.Number, out FuseAttributes attributes);
        if (error != 0)
            return error;
        Seen(node, attributes, channel);
        result.U64(CacheSeconds).U64(0);
        attributes.Write(result);
        return 0;
    }

    private int SetAttributes(Node node, ref FuseReader reader, FuseWriter result, BackEndChannel? channel)
    {
        uint valid = reader.U32();
        reader.Skip(4);
        reader.Skip(8);
        ulong size = reader.U64();
        reader.Skip(8);
        long accessTime = (long)reader.U64();
        long modifyTime = (long)reader.U64();
        reader.Skip(8);
        uint accessNanoseconds = reader.U32();
        uint modifyNanoseconds = reader.U32();
        reader.Skip(4);
        uint mode = reader.U32();
        reader.Skip(4);
        uint uid = reader.U32();
        uint gid = reader.U32();
        if (reader.IsShort)
            return -EINVAL;
        int fd = node.Descriptor.Number;
        int error = 0;
        if ((valid & SetMode) != 0)
            error = HostFiles.Chmod(fd, mode & 0xFFF);
        if (error == 0 && (valid & (SetUid | SetGid)) != 0)
            error = HostFiles.Chown(fd, (valid & SetUid) != 0 ? uid : uint.MaxValue, (valid & SetGid) != 0 ? gid : uint.MaxValue);
        if (error == 0 && (valid & SetSize) != 0)
            error = Truncate(node, size);
        if (error == 0 && (valid & (SetAccessTime | SetModifyTime)) != 0)
        {
            error = HostFiles.SetTimes(fd,
            [
                accessTime, (valid & SetAccessTime) == 0 ? UtimeOmit : (valid & SetAccessTimeNow) != 0 ? UtimeNow : accessNanoseconds,
                modifyTime, (valid & SetModifyTime) == 0 ? UtimeOmit : (valid & SetModifyTimeNow) != 0 ? UtimeNow : modifyNanoseconds,
            ]);
        }
        return error != 0 ? error : GetAttributes(node, result, channel);
    }

    private static int Truncate(Node node, ulong size)
    {
        if (size > long.MaxValue)
            return -EFBIG;
        int error = HostFiles.Reopen(node.Descriptor.Number, O_WRONLY, out FileDescriptor? file);
        if (file == null)
            return error;
        using (file)
            return ftruncate(file.Number, (long)size) == 0 ? 0 : -errno;
    }

    private static int StatFs(Node node, FuseWriter result)
    {
        Span<ulong> values = stackalloc ulong[10];
        int error = HostFiles.StatFs(node.Descriptor.Number, values);
        if (error != 0)
            return error;
        // struct statfs: type, bsize, blocks, bfree, bavail, files, ffree, fsid, namelen, frsize.
        for (int i = 2; i <= 6; i++)
            result.U64(values[i]);
        result.U32((uint)values[1]).U32((uint)values[8]).U32((uint)values[9]).U32(0).Zeros(24);
        return 0;
    }

    private static int ReadLink(Node node, FuseWriter result)
    {
        int error = HostFiles.ReadLink(node.Descriptor.Number, out byte[] target);
        result.Bytes(target);
        return error;
    }

    private int Symlink(Node parent, ref FuseReader reader, FuseWriter result, BackEndChannel? channel)
    {
        byte[] name = reader.String();
        byte[] target = reader.String();
        if (reader.IsShort || !IsName(name))
            return -EINVAL;
        int error = HostFiles.SymlinkAt(target, parent.Descriptor.Number, name);
        return error != 0 ? error : Lookup(parent, name, result, channel);
    }

    private int MakeNode(Node parent, FuseInHeader header, ref FuseReader reader, FuseWriter result, BackEndChannel? channel)
    {
        uint mode = reader.U32();
        uint device = reader.U32();
        uint mask = reader.U32();
        reader.Skip(4);
        byte[] name = reader.String();
        if (reader.IsShort || !IsName(name))
            return -EINVAL;
        int error = HostFiles.MknodAt(parent.Descriptor.Number, name, mode & ~mask, device);
        return error != 0 ? error : Own(parent, name, header, Lookup(parent, name, result, channel));
    }

    private int MakeDirectory(Node parent, FuseInHeader header, ref FuseReader reader, FuseWriter result, BackEndChannel? channel)
    {
        uint mode = reader.U32();
        uint mask = reader.U32();
        byte[] name = reader.String();
        if (reader.IsShort || !IsName(name))
            return -EINVAL;
        int error = HostFiles.MkdirAt(parent.Descriptor.Number, name, mode & ~mask);
        return error != 0 ? error : Own(parent, name, header, Lookup(parent, name, result, channel));
    }

    /// <summary>What a guest's user makes is that user's, where this process may say so.</summary>
    private static int Own(Node parent, ReadOnlySpan<byte> name, FuseInHeader header, int result)
    {
        if (result != 0 || geteuid() != 0 || (header.Uid == 0 && header.Gid == 0))
            return result;
        if (HostFiles.OpenAt(parent.Descriptor.Number, name, HostFiles.O_PATH | HostFiles.O_NOFOLLOW, 0, out FileDescriptor? file) == 0)
        {
            using (file)
                _ = HostFiles.Chown(file!.Number, header.Uid, header.Gid);
        }
        return result;
    }

    private static int Remove(Node parent, ReadOnlySpan<byte> name, int flags) =>
        IsName(name) ? HostFiles.UnlinkAt(parent.Descriptor.Number, name, flags) : -EINVAL;

    private int Rename(Node parent, ref FuseReader reader, bool hasFlags)
    {
        ulong newParent = reader.U64();
        uint flags = hasFlags ? reader.U32() : 0;
        if (hasFlags)
            reader.Skip(4);
        byte[] name = reader.String();
        byte[] newName = reader.String();
        if (reader.IsShort || !IsName(name) || !IsName(newName))
            return -EINVAL;
        return _nodes.TryGetValue(newParent, out Node? target)
            ? HostFiles.RenameAt(parent.Descriptor.Number, name, target.Descriptor.Number, newName, flags)
            : -ENOENT;
    }

    private int Link(Node parent, ref FuseReader reader, FuseWriter result, BackEndChannel? channel)
    {
        ulong old = reader.U64();
        byte[] name = reader.String();
        if (reader.IsShort || !IsName(name))
            return -EINVAL;
        if (!_nodes.TryGetValue(old, out Node? target))
            return -ENOENT;
        int error = HostFiles.LinkAt(target.Descriptor.Number, parent.Descriptor.Number, name);
        return error != 0 ? error : Lookup(parent, name, result, channel);
    }

    private int ReadDirectory(Node node, ref FuseReader reader, FuseWriter result, int room, bool plus, BackEndChannel? channel)
    {
        const int entryLength = 128;
        const int headLength = 24;
        if (!_files.TryGetValue(reader.U64(), out OpenFile? directory))
            return -EBADF;
        ulong offset = reader.U64();
        room = Math.Min(room, (int)Math.Min(reader.U32(), int.MaxValue));
        if (offset == 0 || directory.Entries == null)
        {
            directory.Entries = [];
            int error = HostFiles.List(directory.Descriptor.Number, directory.Entries);
            if (error != 0)
                return error;
        }
        for (int i = (int)Math.Min(offset, (ulong)directory.Entries.Count); i < directory.Entries.Count; i++)
        {
            (ulong inode, byte type, byte[] name) = directory.Entries[i];
            int length = (headLength + name.Length + 7) & ~7;
            if (result.Length + length + (plus ? entryLength : 0) > room)
                break;
            if (plus)
            {
                var entry = new FuseWriter();
                // "." and ".." and what is gone by now are named, but not looked up.
                if (!IsName(name) || Lookup(node, name, entry, channel) != 0)
                    entry = new FuseWriter().Zeros(entryLength);
                result.Bytes(entry.ToArray());
            }
            result.U64(inode).U64((ulong)(i + 1)).U32((uint)name.Length).U32(type).Bytes(name).Zeros(length - headLength - name.Length);
        }
        return 0;
    }
}
