using System.Buffers;
using System.Buffers.Binary;

namespace Vmm.VhostUserBackEnd.Fuse;

/// <summary>Requests of the FUSE protocol (linux/fuse.h), under its names without their prefix.</summary>
public enum FuseOpcode : uint
{
    LOOKUP = 1,
    FORGET = 2,
    GETATTR = 3,
    SETATTR = 4,
    READLINK = 5,
    SYMLINK = 6,
    MKNOD = 8,
    MKDIR = 9,
    UNLINK = 10,
    RMDIR = 11,
    RENAME = 12,
    LINK = 13,
    OPEN = 14,
    READ = 15,
    WRITE = 16,
    STATFS = 17,
    RELEASE = 18,
    FSYNC = 20,
    SETXATTR = 21,
    GETXATTR = 22,
    LISTXATTR = 23,
    REMOVEXATTR = 24,
    FLUSH = 25,
    INIT = 26,
    OPENDIR = 27,
    READDIR = 28,
    RELEASEDIR = 29,
    FSYNCDIR = 30,
    ACCESS = 34,
    CREATE = 35,
    INTERRUPT = 36,
    DESTROY = 38,
    BATCH_FORGET = 42,
    FALLOCATE = 43,
    READDIRPLUS = 44,
    RENAME2 = 45,
    LSEEK = 46,
    SETUPMAPPING = 48,
    REMOVEMAPPING = 49,
    SYNCFS = 50,
}

/// <summary>struct fuse_in_header: 40 bytes.</summary>
public readonly record struct FuseInHeader(uint Len, FuseOpcode Opcode, ulong Unique, ulong NodeId, uint Uid, uint Gid)
{
    public const int Length = 40;

    public static FuseInHeader Read(ReadOnlySpan<byte> data) => new(
        BinaryPrimitives.ReadUInt32LittleEndian(data),
        (FuseOpcode)BinaryPrimitives.ReadUInt32LittleEndian(data[4..]),
        BinaryPrimitives.ReadUInt64LittleEndian(data[8..]),
        BinaryPrimitives.ReadUInt64LittleEndian(data[16..]),
        BinaryPrimitives.ReadUInt32LittleEndian(data[24..]),
        BinaryPrimitives.ReadUInt32LittleEndian(data[28..]));
}

/// <summary>Takes a request's arguments apart; what is not there reads as 0, and <see cref="IsShort"/> tells.</summary>
internal ref struct FuseReader
{
    private ReadOnlySpan<byte> _data;

    internal FuseReader(ReadOnlySpan<byte> data) => _data = data;

    internal bool IsShort { get; private set; }

    internal readonly ReadOnlySpan<byte> Rest => _data;

    internal uint U32() => Take(4) is { Length: 4 } data ? BinaryPrimitives.ReadUInt32LittleEndian(data) : 0;

    internal ulong U64() => Take(8) is { Length: 8 } data ? BinaryPrimitives.ReadUInt64LittleEndian(data) : 0;

    internal void Skip(int length) => Take(length);

    /// <summary>A string with a zero at its end, which is not part of it.</summary>
    internal byte[] String()
    {
        int end = _data.IndexOf((byte)0);
        if (end < 0)
        {
            IsShort = true;
            return [];
        }
        byte[] text = _data[..end].ToArray();
        _data = _data[(end + 1)..];
        return text;
    }

    internal ReadOnlySpan<byte> Take(int length)
    {
        if (_data.Length < length)
        {
            IsShort = true;
            _data = [];
            return [];
        }
        ReadOnlySpan<byte> taken = _data[..length];
        _data = _data[length..];
        return taken;
    }
}

/// <summary>Puts a reply's arguments together.</summary>
internal sealed class FuseWriter
{
    private readonly ArrayBufferWriter<byte> _bytes = new();

    internal int Length => _bytes.WrittenCount;

    internal FuseWriter U16(ushort value) => Bytes(BitConverter.GetBytes(value));

    internal FuseWriter U32(uint value) => Bytes(BitConverter.GetBytes(value));

    internal FuseWriter U64(ulong value) => Bytes(BitConverter.GetBytes(value));

    internal FuseWriter Zeros(int count) => Bytes(new byte[count]);

    internal FuseWriter Bytes(ReadOnlySpan<byte> data)
    {
        _bytes.Write(data);
        return this;
    }

    internal byte[] ToArray() => _bytes.WrittenSpan.ToArray();
}

/// <summary>What statx(2) says about a file, as far as FUSE asks.</summary>
internal readonly record struct FuseAttributes(
    ulong Device, ulong Inode, ulong Size, ulong Blocks, uint Mode, uint Links, uint Uid, uint Gid, uint Rdev, uint BlockSize,
    long AccessTime, uint AccessNanoseconds, long ModifyTime, uint ModifyNanoseconds, long ChangeTime, uint ChangeNanoseconds)
{
    internal const int StatxLength = 256;

    /// <summary>From a struct statx.</summary>
    internal static FuseAttributes FromStatx(ReadOnlySpan<byte> statx) => new(
        Device: ((ulong)U32(statx, 136) << 32) | U32(statx, 140),
        Inode: U64(statx, 32),
        Size: U64(statx, 40),
        Blocks: U64(statx, 48),
        Mode: BinaryPrimitives.ReadUInt16LittleEndian(statx[28..]),
        Links: U32(statx, 16),
        Uid: U32(statx, 20),
        Gid: U32(statx, 24),
        Rdev: (U32(statx, 128) << 8) | U32(statx, 132),
        BlockSize: U32(statx, 4),
        AccessTime: (long)U64(statx, 64),
        AccessNanoseconds: U32(statx, 72),
        ModifyTime: (long)U64(statx, 112),
        ModifyNanoseconds: U32(statx, 120),
        ChangeTime: (long)U64(statx, 96),
        ChangeNanoseconds: U32(statx, 104));

    /// <summary>As struct fuse_attr: 88 bytes.</summary>
    internal void Write(FuseWriter writer) => writer.U64(Inode).U64(Size).U64(Blocks)
        .U64((ulong)AccessTime).U64((ulong)ModifyTime).U64((ulong)ChangeTime)
        .U32(AccessNanoseconds).U32(ModifyNanoseconds).U32(ChangeNanoseconds)
        .U32(Mode).U32(Links).U32(Uid).U32(Gid).U32(Rdev).U32(BlockSize).U32(0);

    private static uint U32(ReadOnlySpan<byte> data, int at) => BinaryPrimitives.ReadUInt32LittleEndian(data[at..]);

    private static ulong U64(ReadOnlySpan<byte> data, int at) => BinaryPrimitives.ReadUInt64LittleEndian(data[at..]);
}
