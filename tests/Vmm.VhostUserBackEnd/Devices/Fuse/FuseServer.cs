using System.Buffers.Binary;
using Vmm.Core;
using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd.Fuse;

/// <summary>
/// A FUSE server over a directory of the host (linux/fuse.h, version 7.36): each node is a descriptor opened with O_PATH, so renames do not matter
/// and no name leads out of the directory. Requests and replies are whole byte arrays. One request at a time.
/// </summary>
public sealed unsafe partial class FuseServer : IDisposable
{
    private const ulong RootId = 1;
    private const int OutHeaderLength = 16;
    private const uint Major = 7;
    private const uint Minor = 36;
    private const uint MaximumWrite = 1 << 20;
    private const ushort MaximumPages = 256;
    private const int OptionMaxPages = 1 << 22;
    private const int OptionMapAlignment = 1 << 26;
    // ASYNC_READ, BIG_WRITES, DO_READDIRPLUS, READDIRPLUS_AUTO, PARALLEL_DIROPS.
    private const uint Options = (1 << 0) | (1 << 5) | (1 << 13) | (1 << 14) | (1 << 18) | OptionMaxPages | OptionMapAlignment;

    private readonly Lock _gate = new();
    private readonly string _directory;
    private readonly ulong _windowSize;
    private readonly Dictionary<ulong, Node> _nodes = [];
    private readonly Dictionary<(ulong Device, ulong Inode), ulong> _ids = [];
    private readonly Dictionary<ulong, OpenFile> _files = [];
    private DaxWindow? _window;
    private ulong _nextId = RootId;
    private ulong _nextHandle = 1;

    /// <param name="directory">What the guest sees.</param>
    /// <param name="windowSize">Of the DAX window, in bytes; 0 without.</param>
    /// <exception cref="VmmException">The directory cannot be opened.</exception>
    public FuseServer(string directory, ulong windowSize)
    {
        _directory = directory;
        _windowSize = windowSize;
        Clear(null);
    }

    /// <summary>Keeps what is served next for no longer than this, in seconds; 0 makes the guest ask every time.</summary>
    public ulong CacheSeconds { get; set; }

    /// <summary>Whether mappings are read-only until the guest asks to write. A guest does so with a page in use, and there is no way to replace a
    /// mapping without a moment in which there is none; so files that may be written are mapped for writing at once where this is false.</summary>
    public bool MapsReadOnlyFirst { get; set; }

    /// <summary>How many requests of each kind were served.</summary>
    public IReadOnlyDictionary<FuseOpcode, long> Counts => _counts;
    private readonly System.Collections.Concurrent.ConcurrentDictionary<FuseOpcode, long> _counts = new();

    /// <summary>How many parts of files are mapped.</summary>
    public int MappedExtents
    {
        get
        {
            lock (_gate)
                return _window?.Extents ?? 0;
        }
    }

    /// <summary>Serves one request.</summary>
    /// <param name="request">Header and arguments.</param>
    /// <param name="room">How many bytes the reply may have.</param>
    /// <param name="channel">Who maps; null where nothing can be.</param>
    /// <returns>Header and results; empty where the request has no reply.</returns>
    public byte[] Serve(ReadOnlySpan<byte> request, int room, BackEndChannel? channel)
    {
        if (request.Length < FuseInHeader.Length)
            return [];
        FuseInHeader header = FuseInHeader.Read(request);
        var reader = new FuseReader(request[FuseInHeader.Length..]);
        _counts.AddOrUpdate(header.Opcode, 1, (_, count) => count + 1);
        if (header.Opcode is FuseOpcode.FORGET or FuseOpcode.BATCH_FORGET or FuseOpcode.INTERRUPT)
        {
            lock (_gate)
                Forget(header, ref reader);
            return [];
        }
        if (room < OutHeaderLength)
            return [];
        var result = new FuseWriter();
        int error;
        lock (_gate)
            error = Do(header, ref reader, result, room - OutHeaderLength, channel);
        if (error == 0 && result.Length > room - OutHeaderLength)
            error = -EIO;
        byte[] body = error == 0 ? result.ToArray() : [];
        var reply = new byte[OutHeaderLength + body.Length];
        BinaryPrimitives.WriteUInt32LittleEndian(reply, (uint)reply.Length);
        BinaryPrimitives.WriteInt32LittleEndian(reply.AsSpan(4), error);
        BinaryPrimitives.WriteUInt64LittleEndian(reply.AsSpan(8), header.Unique);
        body.CopyTo(reply, OutHeaderLength);
        return reply;
    }

    /// <summary>Forgets all mappings without asking the front-end, which has dropped them.</summary>
    public void MappingsAreGone()
    {
        lock (_gate)
            _window?.UnmapAll(null);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_gate)
        {
            _window?.UnmapAll(null);
            foreach (OpenFile file in _files.Values)
                file.Descriptor.Dispose();
            foreach (Node node in _nodes.Values)
                node.Descriptor.Dispose();
            _files.Clear();
            _nodes.Clear();
        }
    }

    private int Do(FuseInHeader header, ref FuseReader reader, FuseWriter result, int room, BackEndChannel? channel)
    {
        if (header.Opcode == FuseOpcode.INIT)
            return Initialize(ref reader, result, channel);
        if (header.Opcode == FuseOpcode.DESTROY)
        {
            Clear(channel);
            return 0;
        }
        if (!_nodes.TryGetValue(header.NodeId, out Node? node) && header.Opcode is not FuseOpcode.REMOVEMAPPING)
            return -ENOENT;
        int error = header.Opcode switch
        {
            FuseOpcode.LOOKUP => Lookup(node!, reader.String(), result, channel),
            FuseOpcode.GETATTR => GetAttributes(node!, result, channel),
            FuseOpcode.SETATTR => SetAttributes(node!, ref reader, result, channel),
            FuseOpcode.ACCESS or FuseOpcode.SYNCFS => 0,
            FuseOpcode.STATFS => StatFs(node!, result),
            FuseOpcode.READLINK => ReadLink(node!, result),
            FuseOpcode.SYMLINK => Symlink(node!, ref reader, result, channel),
            FuseOpcode.MKNOD => MakeNode(node!, header, ref reader, result, channel),
            FuseOpcode.MKDIR => MakeDirectory(node!, header, ref reader, result, channel),
            FuseOpcode.UNLINK => Remove(node!, reader.String(), 0),
            FuseOpcode.RMDIR => Remove(node!, reader.String(), HostFiles.AT_REMOVEDIR),
            FuseOpcode.RENAME => Rename(node!, ref reader, hasFlags: false),
            FuseOpcode.RENAME2 => Rename(node!, ref reader, hasFlags: true),
            FuseOpcode.LINK => Link(node!, ref reader, result, channel),
            FuseOpcode.OPEN => Open(node!, ref reader, result, directory: false),
            FuseOpcode.OPENDIR => Open(node!, ref reader, result, directory: true),
            FuseOpcode.CREATE => Create(node!, header, ref reader, result, channel),
            FuseOpcode.RELEASE or FuseOpcode.RELEASEDIR => Release(reader.U64()),
            FuseOpcode.READ => ReadFile(ref reader, result, room),
            FuseOpcode.WRITE => WriteFile(node!, ref reader, result, channel),
            FuseOpcode.READDIR => ReadDirectory(node!, ref reader, result, room, plus: false, channel),
            FuseOpcode.READDIRPLUS => ReadDirectory(node!, ref reader, result, room, plus: true, channel),
            FuseOpcode.FLUSH => _files.ContainsKey(reader.U64()) ? 0 : -EBADF,
            FuseOpcode.FSYNC or FuseOpcode.FSYNCDIR => Sync(ref reader),
            FuseOpcode.FALLOCATE => Allocate(node!, ref reader, channel),
            FuseOpcode.LSEEK => Seek(ref reader, result),
            FuseOpcode.SETUPMAPPING => SetUpMapping(node!, ref reader, channel),
            FuseOpcode.REMOVEMAPPING => RemoveMappings(ref reader, channel),
            _ => -ENOSYS,
        };
        return reader.IsShort ? -EINVAL : error;
    }

    private int Initialize(ref FuseReader reader, FuseWriter result, BackEndChannel? channel)
    {
        uint major = reader.U32();
        uint minor = reader.U32();
        uint readAhead = reader.U32();
        uint options = reader.U32();
        if (reader.IsShort || major != Major || minor < 27)
            return -EPROTO;
        Clear(channel);
        uint agreed = options & Options & ~(_windowSize == 0 ? (uint)OptionMapAlignment : 0);
        result.U32(Major).U32(Math.Min(minor, Minor)).U32(readAhead).U32(agreed)
            .U16(64).U16(48).U32(MaximumWrite).U32(1)
            .U16((agreed & OptionMaxPages) != 0 ? MaximumPages : (ushort)0)
            .U16((agreed & OptionMapAlignment) != 0 ? (ushort)DaxWindow.PageShift : (ushort)0)
            .U32(0).Zeros(28);
        return 0;
    }

    /// <summary>As at the start: no node but the root, no open file, no mapping.</summary>
    private void Clear(BackEndChannel? channel)
    {
        _window?.UnmapAll(channel);
        _window = new DaxWindow(_windowSize);
        foreach (OpenFile file in _files.Values)
            file.Descriptor.Dispose();
        _files.Clear();
        int error = HostFiles.OpenAt(AT_FDCWD, System.Text.Encoding.UTF8.GetBytes(_directory), HostFiles.O_PATH | HostFiles.O_DIRECTORY, 0, out FileDescriptor? root);
        if (root == null || (error = HostFiles.Stat(root.Number, out FuseAttributes attributes)) != 0)
            throw VmmException.Host($"Cannot open the shared directory {_directory}: {strerror(-error)}.");
        foreach (Node node in _nodes.Values)
            node.Descriptor.Dispose();
        _nodes.Clear();
        _ids.Clear();
        _nodes.Add(RootId, new Node(RootId, root, attributes.Device, attributes.Inode));
        _ids.Add((attributes.Device, attributes.Inode), RootId);
    }

    private void Forget(FuseInHeader header, ref FuseReader reader)
    {
        if (header.Opcode == FuseOpcode.FORGET)
            Forget(header.NodeId, reader.U64());
        if (header.Opcode != FuseOpcode.BATCH_FORGET)
            return;
        uint count = reader.U32();
        reader.Skip(4);
        for (uint i = 0; i < count && !reader.IsShort; i++)
        {
            ulong id = reader.U64();
            Forget(id, reader.U64());
        }
    }

    private void Forget(ulong id, ulong lookups)
    {
        if (id == RootId || !_nodes.TryGetValue(id, out Node? node))
            return;
        node.Lookups -= Math.Min(lookups, node.Lookups);
        if (node.Lookups != 0)
            return;
        _nodes.Remove(id);
        _ids.Remove((node.Device, node.Inode));
        node.Descriptor.Dispose();
    }

    private static bool IsName(ReadOnlySpan<byte> name) =>
        !name.IsEmpty && name.Length < 256 && !name.Contains((byte)'/') && !name.SequenceEqual("."u8) && !name.SequenceEqual(".."u8);

    private sealed class Node
    {
        internal Node(ulong id, FileDescriptor descriptor, ulong device, ulong inode)
        {
            Id = id;
            Descriptor = descriptor;
            Device = device;
            Inode = inode;
        }

        internal ulong Id { get; }

        internal FileDescriptor Descriptor { get; }

        internal ulong Device { get; }

        internal ulong Inode { get; }

        internal ulong Lookups { get; set; }
    }

    private sealed record OpenFile(FileDescriptor Descriptor)
    {
        internal List<(ulong Inode, byte Type, byte[] Name)>? Entries { get; set; }
    }
}
