using Vmm.Core.Interop;
using static Vmm.Core.Interop.LibC;

namespace Vmm.VhostUserBackEnd.Fuse;

/// <summary>
/// System calls on directory descriptors and names, which .NET has no API for. They go by number because only these tests need them; every one
/// answers 0 or more, or a negative errno.
/// </summary>
internal static unsafe class HostFiles
{
    internal const int O_PATH = 0x200000;
    internal const int O_NOFOLLOW = 0x20000;
    internal const int O_DIRECTORY = 0x10000;
    internal const int AT_REMOVEDIR = 0x200;

    private const int AT_SYMLINK_FOLLOW = 0x400;
    private const uint StatxBasic = 0x7FF;

    // x86-64 (asm/unistd_64.h).
    private const long SYS_fsync = 74;
    private const long SYS_fstatfs = 138;
    private const long SYS_getdents64 = 217;
    private const long SYS_openat = 257;
    private const long SYS_mkdirat = 258;
    private const long SYS_mknodat = 259;
    private const long SYS_fchownat = 260;
    private const long SYS_unlinkat = 263;
    private const long SYS_linkat = 265;
    private const long SYS_symlinkat = 266;
    private const long SYS_readlinkat = 267;
    private const long SYS_fchmodat = 268;
    private const long SYS_utimensat = 280;
    private const long SYS_renameat2 = 316;

    /// <summary>openat(2) of a name.</summary>
    internal static int OpenAt(int directory, ReadOnlySpan<byte> name, int flags, uint mode, out FileDescriptor? file)
    {
        file = null;
        long fd;
        fixed (byte* path = Terminated(name))
            fd = Call(SYS_openat, (nuint)(nint)directory, (nuint)path, (nuint)(flags | O_CLOEXEC), mode);
        if (fd < 0)
            return (int)fd;
        file = new FileDescriptor((int)fd);
        return 0;
    }

    /// <summary>Opens what a descriptor of any kind stands for; a symbolic link is not followed further.</summary>
    internal static int Reopen(int fd, int flags, out FileDescriptor? file)
    {
        Span<byte> path = stackalloc byte[32];
        return OpenAt(AT_FDCWD, ProcPath(fd, path), flags, 0, out file);
    }

    internal static int Stat(int fd, out FuseAttributes attributes)
    {
        byte* buffer = stackalloc byte[FuseAttributes.StatxLength];
        int result = statx(fd, "", AT_EMPTY_PATH, StatxBasic, (statx*)buffer) == 0 ? 0 : -errno;
        attributes = result == 0 ? FuseAttributes.FromStatx(new ReadOnlySpan<byte>(buffer, FuseAttributes.StatxLength)) : default;
        return result;
    }

    internal static int MkdirAt(int directory, ReadOnlySpan<byte> name, uint mode) => OnName(SYS_mkdirat, directory, name, mode, 0);

    internal static int MknodAt(int directory, ReadOnlySpan<byte> name, uint mode, uint device) => OnName(SYS_mknodat, directory, name, mode, device);

    internal static int UnlinkAt(int directory, ReadOnlySpan<byte> name, int flags) => OnName(SYS_unlinkat, directory, name, (nuint)flags, 0);

    internal static int RenameAt(int directory, ReadOnlySpan<byte> name, int toDirectory, ReadOnlySpan<byte> toName, uint flags)
    {
        fixed (byte* from = Terminated(name), to = Terminated(toName))
            return (int)Call(SYS_renameat2, (nuint)(nint)directory, (nuint)from, (nuint)(nint)toDirectory, (nuint)to, flags);
    }

    internal static int SymlinkAt(ReadOnlySpan<byte> target, int directory, ReadOnlySpan<byte> name)
    {
        fixed (byte* text = Terminated(target), path = Terminated(name))
            return (int)Call(SYS_symlinkat, (nuint)text, (nuint)(nint)directory, (nuint)path);
    }

    internal static int LinkAt(int fd, int directory, ReadOnlySpan<byte> name)
    {
        Span<byte> proc = stackalloc byte[32];
        fixed (byte* from = Terminated(ProcPath(fd, proc)), to = Terminated(name))
            return (int)Call(SYS_linkat, unchecked((nuint)AT_FDCWD), (nuint)from, (nuint)(nint)directory, (nuint)to, AT_SYMLINK_FOLLOW);
    }

    internal static int ReadLink(int fd, out byte[] target)
    {
        byte* buffer = stackalloc byte[4096];
        byte empty = 0;
        long length = Call(SYS_readlinkat, (nuint)(nint)fd, (nuint)(&empty), (nuint)buffer, 4096);
        target = length > 0 ? new ReadOnlySpan<byte>(buffer, (int)length).ToArray() : [];
        return (int)Math.Min(length, 0);
    }

    internal static int Chmod(int fd, uint mode) => OnProc(SYS_fchmodat, fd, mode, 0);

    /// <summary>chown(2); uint.MaxValue leaves a number as it is.</summary>
    internal static int Chown(int fd, uint uid, uint gid)
    {
        byte empty = 0;
        return (int)Call(SYS_fchownat, (nuint)(nint)fd, (nuint)(&empty), uid, gid, AT_EMPTY_PATH);
    }

    /// <summary>utimensat(2).</summary>
    /// <param name="fd">What to change.</param>
    /// <param name="times">Access seconds, nanoseconds; modification seconds, nanoseconds.</param>
    internal static int SetTimes(int fd, ReadOnlySpan<long> times)
    {
        fixed (long* four = times)
            return OnProc(SYS_utimensat, fd, (nuint)four, 0);
    }

    internal static int Fsync(int fd, bool dataOnly) => dataOnly ? (fdatasync(fd) == 0 ? 0 : -errno) : (int)Call(SYS_fsync, (nuint)(nint)fd);

    /// <summary>fstatfs(2): type, bsize, blocks, bfree, bavail, files, ffree, fsid, namelen, frsize.</summary>
    internal static int StatFs(int fd, Span<ulong> result)
    {
        ulong* buffer = stackalloc ulong[16];
        long status = Call(SYS_fstatfs, (nuint)(nint)fd, (nuint)buffer);
        new ReadOnlySpan<ulong>(buffer, result.Length).CopyTo(result);
        return (int)status;
    }

    /// <summary>All names of an open directory: number, type (DT_*) and bytes.</summary>
    internal static int List(int fd, List<(ulong Inode, byte Type, byte[] Name)> entries)
    {
        if (lseek(fd, 0, 0) < 0)
            return -errno;
        byte* buffer = stackalloc byte[8192];
        while (true)
        {
            long length = Call(SYS_getdents64, (nuint)(nint)fd, (nuint)buffer, 8192);
            if (length <= 0)
                return (int)length;
            for (long at = 0; at < length; at += *(ushort*)(buffer + at + 16))
            {
                byte* name = buffer + at + 19;
                int end = new ReadOnlySpan<byte>(name, 256).IndexOf((byte)0);
                entries.Add((*(ulong*)(buffer + at), *(buffer + at + 18), new ReadOnlySpan<byte>(name, end).ToArray()));
            }
        }
    }

    private static int OnName(long number, int directory, ReadOnlySpan<byte> name, nuint a3, nuint a4)
    {
        fixed (byte* path = Terminated(name))
            return (int)Call(number, (nuint)(nint)directory, (nuint)path, a3, a4);
    }

    private static int OnProc(long number, int fd, nuint a3, nuint a4)
    {
        Span<byte> proc = stackalloc byte[32];
        return OnName(number, AT_FDCWD, ProcPath(fd, proc), a3, a4);
    }

    private static ReadOnlySpan<byte> ProcPath(int fd, Span<byte> room)
    {
        System.Text.Unicode.Utf8.TryWrite(room, $"/proc/self/fd/{fd}", out int length);
        return room[..length];
    }

    private static byte[] Terminated(ReadOnlySpan<byte> text)
    {
        var bytes = new byte[text.Length + 1];
        text.CopyTo(bytes);
        return bytes;
    }

    private static long Call(long number, nuint a1, nuint a2 = 0, nuint a3 = 0, nuint a4 = 0, nuint a5 = 0)
    {
        long result = syscall(number, a1, a2, a3, a4, a5, 0);
        return result >= 0 ? result : -errno;
    }
}
