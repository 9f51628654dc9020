using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using Vmm.Core.Interop;

namespace Vmm.Core.Boot;

/// <summary>The bytes of a kernel or an initramfs, wherever they are.</summary>
internal interface IKernelFile
{
    /// <summary>What it is, for messages: "kernel /boot/vmlinuz".</summary>
    string Name { get; }

    /// <summary>Bytes.</summary>
    ulong Length { get; }

    /// <summary>Fills a buffer from an offset on.</summary>
    /// <exception cref="VmmException">It ends before, or cannot be read.</exception>
    void Read(ulong offset, Span<byte> destination);
}

/// <summary>A regular file, read where it is asked for, by pread, straight into the caller's memory.</summary>
internal sealed class DiskKernelFile : IKernelFile, IDisposable
{
    private readonly SafeFileHandle _handle;

    private DiskKernelFile(SafeFileHandle handle, string name, ulong length)
    {
        _handle = handle;
        Name = name;
        Length = length;
    }

    public string Name { get; }

    public ulong Length { get; }

    /// <summary>Opens a file.</summary>
    /// <param name="path">Its path.</param>
    /// <param name="role">"kernel" or "initramfs", for messages.</param>
    /// <exception cref="VmmException">It is missing, empty, not a regular file or may not be read.</exception>
    public static DiskKernelFile Open(string path, string role)
    {
        if (string.IsNullOrEmpty(path) || path.Contains('\0'))
            throw VmmException.Configuration($"The path of the {role} is empty or contains a NUL character; give the path of a file (--{role}).");
        RequireRegularFile(path, role);
        SafeFileHandle? handle = null;
        try
        {
            // No sharing restrictions: they would take locks on a file that is only read.
            handle = File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
            long length = RandomAccess.GetLength(handle);
            if (length <= 0)
                throw VmmException.Configuration($"The {role} {path} is empty; give a file with content (--{role}).");
            return new DiskKernelFile(handle, $"{role} {path}", (ulong)length);
        }
        catch (Exception e)
        {
            handle?.Dispose();
            if (e is IOException or UnauthorizedAccessException or NotSupportedException)
                throw VmmException.Configuration($"Cannot open the {role} {path}: {OneLine(e)}", e);
            throw;
        }
    }

    public void Read(ulong offset, Span<byte> destination)
    {
        while (!destination.IsEmpty)
        {
            int read;
            try
            {
                read = offset > long.MaxValue ? 0 : RandomAccess.Read(_handle, destination, (long)offset);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException or NotSupportedException)
            {
                throw VmmException.Configuration($"Cannot read the {Name} at offset {offset}: {OneLine(e)}", e);
            }
            if (read == 0)
                throw KernelFileErrors.Ends(Name, offset, destination.Length);
            destination = destination[read..];
            offset += (ulong)read;
        }
    }

    public void Dispose() => _handle.Dispose();

    /// <summary>Looks before opening: opening a FIFO would wait for a writer, and a device may do anything.</summary>
    private static unsafe void RequireRegularFile(string path, string role)
    {
        // Safe: the buffer has the size of struct statx and lives for the call.
        statx stat = default;
        if (LibC.statx(LibC.AT_FDCWD, path, 0, LibC.STATX_TYPE, &stat) != 0)
        {
            int error = Marshal.GetLastPInvokeError();
            throw VmmException.Configuration($"Cannot open the {role} {path}: {Marshal.GetPInvokeErrorMessage(error)}; check the path (--{role}).");
        }
        int type = stat.stx_mode & LibC.S_IFMT;
        if (type == LibC.S_IFDIR)
            throw VmmException.Configuration($"The {role} {path} is a directory; give the path of a file (--{role}).");
        if (type != LibC.S_IFREG)
            throw VmmException.Configuration($"The {role} {path} is not a regular file; give the path of one (--{role}).");
    }

    private static string OneLine(Exception e) => e.Message.ReplaceLineEndings(" ");
}

/// <summary>Bytes in memory that its owner keeps mapped while this is used: an unpacked kernel.</summary>
internal sealed unsafe class NativeKernelFile(string name, byte* start, ulong length) : IKernelFile
{
    private readonly byte* _start = start;

    public string Name { get; } = name;

    public ulong Length { get; } = length;

    public void Read(ulong offset, Span<byte> destination)
    {
        if (offset > Length || (ulong)destination.Length > Length - offset)
            throw KernelFileErrors.Ends(Name, offset, destination.Length);
        // Safe: the range was checked against the length that the owner vouches for.
        new ReadOnlySpan<byte>(_start + offset, destination.Length).CopyTo(destination);
    }
}

internal static class KernelFileErrors
{
    public static VmmException Ends(string name, ulong offset, int wanted) =>
        VmmException.Configuration($"The {name} is truncated: it ends before the {wanted} bytes expected at offset {offset}; get the file again.");
}
