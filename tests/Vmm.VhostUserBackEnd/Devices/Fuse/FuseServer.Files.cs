using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd.Fuse;

// Requests about open files, and the window.
public sealed unsafe partial class FuseServer
{
    private const uint MappingWrite = 1;
    private const int AccessModes = 3;

    private int Open(Node node, ref FuseReader reader, FuseWriter result, bool directory)
    {
        int flags = (int)reader.U32();
        reader.Skip(4);
        if (reader.IsShort)
            return -EINVAL;
        flags = directory ? O_RDONLY | HostFiles.O_DIRECTORY : flags & (AccessModes | O_TRUNC);
        int error = HostFiles.Reopen(node.Descriptor.Number, flags, out FileDescriptor? file);
        return file == null ? error : Opened(file, result);
    }

    private int Create(Node parent, FuseInHeader header, ref FuseReader reader, FuseWriter result, BackEndChannel? channel)
    {
        int flags = (int)reader.U32();
        uint mode = reader.U32();
        uint mask = reader.U32();
        reader.Skip(4);
        byte[] name = reader.String();
        if (reader.IsShort || !IsName(name))
            return -EINVAL;
        int error = HostFiles.OpenAt(parent.Descriptor.Number, name, (flags & (AccessModes | O_TRUNC | O_EXCL)) | O_CREAT | HostFiles.O_NOFOLLOW, mode & ~mask, out FileDescriptor? file);
        if (file == null)
            return error;
        error = Own(parent, name, header, Lookup(parent, name, result, channel));
        if (error == 0)
            return Opened(file, result);
        file.Dispose();
        return error;
    }

    private int Opened(FileDescriptor file, FuseWriter result)
    {
        ulong handle = _nextHandle++;
        _files.Add(handle, new OpenFile(file));
        result.U64(handle).U32(0).U32(0);
        return 0;
    }

    private int Release(ulong handle)
    {
        if (!_files.Remove(handle, out OpenFile? file))
            return -EBADF;
        file.Descriptor.Dispose();
        return 0;
    }

    private int ReadFile(ref FuseReader reader, FuseWriter result, int room)
    {
        ulong handle = reader.U64();
        ulong offset = reader.U64();
        int size = (int)Math.Min(reader.U32(), (uint)room);
        if (reader.IsShort)
            return -EINVAL;
        if (!_files.TryGetValue(handle, out OpenFile? file))
            return -EBADF;
        var data = new byte[size];
        int done = 0;
        fixed (byte* start = data)
        {
            while (done < size)
            {
                nint count = pread(file.Descriptor.Number, start + done, (nuint)(size - done), (long)offset + done);
                if (count < 0)
                    return -errno;
                if (count == 0)
                    break;
                done += (int)count;
            }
        }
        result.Bytes(data.AsSpan(0, done));
        return 0;
    }

    private int WriteFile(Node node, ref FuseReader reader, FuseWriter result, BackEndChannel? channel)
    {
        ulong handle = reader.U64();
        ulong offset = reader.U64();
        uint size = reader.U32();
        reader.Skip(20);
        if (size > MaximumWrite)
            return -EINVAL;
        ReadOnlySpan<byte> data = reader.Take((int)size);
        if (reader.IsShort)
            return -EINVAL;
        if (!_files.TryGetValue(handle, out OpenFile? file))
            return -EBADF;
        nint count;
        fixed (byte* start = data)
            count = pwrite(file.Descriptor.Number, start, size, (long)offset);
        if (count < 0)
            return -errno;
        Grew(node, channel);
        result.U32((uint)count).U32(0);
        return 0;
    }

    private void Grew(Node node, BackEndChannel? channel)
    {
        if (channel != null && _window is { Extents: > 0 } && HostFiles.Stat(node.Descriptor.Number, out FuseAttributes attributes) == 0)
            _window.Grow(channel, node.Inode, attributes.Size);
    }

    private int Sync(ref FuseReader reader)
    {
        ulong handle = reader.U64();
        bool dataOnly = (reader.U32() & 1) != 0;
        return _files.TryGetValue(handle, out OpenFile? file) ? HostFiles.Fsync(file.Descriptor.Number, dataOnly) : -EBADF;
    }

    private int Allocate(Node node, ref FuseReader reader, BackEndChannel? channel)
    {
        ulong handle = reader.U64();
        ulong offset = reader.U64();
        ulong length = reader.U64();
        uint mode = reader.U32();
        if (reader.IsShort)
            return -EINVAL;
        if (!_files.TryGetValue(handle, out OpenFile? file))
            return -EBADF;
        if (fallocate(file.Descriptor.Number, (int)mode, (long)offset, (long)length) != 0)
            return -errno;
        Grew(node, channel);
        return 0;
    }

    private int Seek(ref FuseReader reader, FuseWriter result)
    {
        ulong handle = reader.U64();
        ulong offset = reader.U64();
        uint whence = reader.U32();
        if (reader.IsShort)
            return -EINVAL;
        if (!_files.TryGetValue(handle, out OpenFile? file))
            return -EBADF;
        long found = lseek(file.Descriptor.Number, (long)offset, (int)whence);
        if (found < 0)
            return -errno;
        result.U64((ulong)found);
        return 0;
    }

    private int SetUpMapping(Node node, ref FuseReader reader, BackEndChannel? channel)
    {
        // Linux sends no file handle: the node is what is mapped.
        reader.Skip(8);
        ulong fileOffset = reader.U64();
        ulong length = reader.U64();
        ulong flags = reader.U64();
        ulong offset = reader.U64();
        if (reader.IsShort)
            return -EINVAL;
        if (channel == null || _window == null || _windowSize == 0)
            return -ENOSYS;
        bool asked = (flags & MappingWrite) != 0;
        bool writable = asked || !MapsReadOnlyFirst;
        int error = HostFiles.Reopen(node.Descriptor.Number, writable ? O_RDWR : O_RDONLY, out FileDescriptor? file);
        if (file == null && writable && !asked)
        {
            writable = false;
            error = HostFiles.Reopen(node.Descriptor.Number, O_RDONLY, out file);
        }
        if (file == null)
            return error;
        error = HostFiles.Stat(file.Number, out FuseAttributes attributes);
        if (error == 0)
            return _window.Map(channel, file, node.Inode, attributes.Size, fileOffset, offset, length, writable);
        file.Dispose();
        return error;
    }

    private int RemoveMappings(ref FuseReader reader, BackEndChannel? channel)
    {
        uint count = reader.U32();
        if (channel == null || _window == null)
            return -ENOSYS;
        int error = 0;
        for (uint i = 0; i < count && !reader.IsShort; i++)
        {
            ulong offset = reader.U64();
            ulong length = reader.U64();
            if (reader.IsShort)
                return -EINVAL;
            int result = length == ulong.MaxValue ? _window.UnmapAll(channel) : _window.Unmap(channel, offset, length);
            error = error != 0 ? error : result;
        }
        return error;
    }
}
