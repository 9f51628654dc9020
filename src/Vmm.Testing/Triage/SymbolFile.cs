using Microsoft.Win32.SafeHandles;
using Vmm.Core;

namespace Vmm.Testing.Triage;

/// <summary>A file with symbols, read in pieces where they are asked for.</summary>
internal sealed class SymbolFile : IDisposable
{
    private readonly SafeFileHandle _handle;

    private SymbolFile(SafeFileHandle handle, string path, long length)
    {
        _handle = handle;
        Path = path;
        Length = (ulong)length;
    }

    /// <summary>As it was given.</summary>
    public string Path { get; }

    /// <summary>Bytes.</summary>
    public ulong Length { get; }

    /// <summary>Opens a file.</summary>
    /// <exception cref="VmmException">It is missing, not a regular file, empty, or may not be read.</exception>
    public static SymbolFile Open(string path)
    {
        if (string.IsNullOrEmpty(path) || path.Contains('\0'))
            throw VmmException.Configuration("The path of the symbol file is empty or contains a NUL character; give the kernel's System.map or vmlinux.");
        SafeFileHandle? handle = null;
        try
        {
            // Looks before opening: opening a FIFO would wait for a writer. Only regular files have a length.
            FileAttributes attributes = File.GetAttributes(path);
            if ((attributes & FileAttributes.Directory) != 0)
                throw VmmException.Configuration($"The symbol file {path} is a directory; give the kernel's System.map or vmlinux.");
            if (new FileInfo(path) is var info && (info.ResolveLinkTarget(true) as FileInfo ?? info).Length == 0)
                throw VmmException.Configuration($"The symbol file {path} is empty or not a regular file; give the kernel's System.map or vmlinux.");
            handle = File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
            return new SymbolFile(handle, path, RandomAccess.GetLength(handle));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or NotSupportedException or ArgumentException)
        {
            handle?.Dispose();
            throw VmmException.Configuration($"Cannot open the symbol file {path}: {e.Message.ReplaceLineEndings(" ")}", e);
        }
    }

    /// <summary>Whether it begins as an ELF file does.</summary>
    public bool IsElf()
    {
        Span<byte> magic = stackalloc byte[4];
        return Length >= 4 && Read(0, magic) == 4 && magic.SequenceEqual("\u007fELF"u8);
    }

    /// <summary>Reads as much as there is.</summary>
    /// <returns>The number of bytes; fewer than asked for only at the end.</returns>
    public int Read(ulong offset, Span<byte> destination)
    {
        int all = 0;
        try
        {
            while (all < destination.Length && offset + (ulong)all < long.MaxValue)
            {
                int read = RandomAccess.Read(_handle, destination[all..], (long)offset + all);
                if (read == 0)
                    break;
                all += read;
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or NotSupportedException)
        {
            throw VmmException.Configuration($"Cannot read the symbol file {Path} at offset {offset}: {e.Message.ReplaceLineEndings(" ")}", e);
        }

        return all;
    }

    /// <summary>Reads exactly.</summary>
    /// <exception cref="VmmException">It ends before.</exception>
    public void ReadAll(ulong offset, Span<byte> destination)
    {
        if (offset > Length || (ulong)destination.Length > Length - offset || Read(offset, destination) != destination.Length)
            throw Bad($"ends before the {destination.Length} bytes expected at offset {offset}");
    }

    /// <summary>The error for content that is wrong.</summary>
    /// <param name="why">What is wrong, after the file's name: <c>has no symbol table</c>.</param>
    public VmmException Bad(string why) =>
        VmmException.Configuration($"The symbol file {Path} {why}; give the kernel's System.map, or its vmlinux with a symbol table.");

    public void Dispose() => _handle.Dispose();
}
