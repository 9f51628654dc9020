using System.Text;
using Vmm.Core;
using Vmm.Core.Boot;

namespace Vmm.Exec;

/// <summary>What a kernel file says of its release, by which its modules are found: <c>6.12.0-1-amd64</c>.</summary>
internal static class KernelRelease
{
    // Where the setup header says where the text is, relative to the second sector (boot.rst, kernel_version).
    private const int PointerOffset = 0x20E;
    private const int PointerBase = 0x200;
    private const int LongestText = 256;
    private const int Chunk = 1 << 20;

    /// <summary>Reads it.</summary>
    /// <param name="path">A bzImage or an ELF vmlinux.</param>
    /// <returns>Null where the file does not say.</returns>
    /// <exception cref="VmmException">The file cannot be read.</exception>
    internal static string? Read(string path)
    {
        using DiskKernelFile file = DiskKernelFile.Open(path, "kernel");
        return Read(file);
    }

    internal static string? Read(IKernelFile file)
    {
        if (ElfImage.Claims(file))
            return FindBanner(file);
        if (!BzImageHeader.Claims(file) || file.Length < PointerOffset + 2)
            return null;
        Span<byte> pointer = stackalloc byte[2];
        file.Read(PointerOffset, pointer);
        ulong at = (ulong)(pointer[0] | pointer[1] << 8) + PointerBase;
        if (at == PointerBase || at >= file.Length)
            return null;
        byte[] text = new byte[Math.Min(LongestText, file.Length - at)];
        file.Read(at, text);
        return FirstWord(text);
    }

    /// <summary>The banner's beginning, which every vmlinux has among its constants.</summary>
    private static string? FindBanner(IKernelFile file)
    {
        ReadOnlySpan<byte> banner = "Linux version "u8;
        byte[] buffer = new byte[Chunk + LongestText];
        for (ulong start = 0; start < file.Length; start += Chunk)
        {
            Span<byte> part = buffer.AsSpan(0, (int)Math.Min((ulong)buffer.Length, file.Length - start));
            file.Read(start, part);
            int from = 0, found;
            while (from < part.Length && (found = part[from..].IndexOf(banner)) >= 0)
            {
                from += found + banner.Length;
                // There are formats of it too ("Linux version %s"), and prose.
                if (FirstWord(part[from..]) is { } release && char.IsAsciiDigit(release[0]))
                    return release;
            }
        }
        return null;
    }

    private static string? FirstWord(ReadOnlySpan<byte> text)
    {
        int end = text.IndexOfAny((byte)' ', (byte)0);
        if (end <= 0 || end > LongestText)
            return null;
        foreach (byte letter in text[..end])
        {
            // It becomes a part of a path.
            if (letter is <= 0x20 or >= 0x7F or (byte)'/')
                return null;
        }
        string word = Encoding.ASCII.GetString(text[..end]);
        return word is "." or ".." ? null : word;
    }
}
