using System.Globalization;
using System.Text;

namespace Vmm.Exec;

/// <summary>
/// An initramfs in the "newc" format (Linux's Documentation/driver-api/early-userspace/buffer-format.rst): headers in hexadecimal text, names and
/// contents filled up to four bytes. The same entries give the same bytes: no times, everything root's.
/// </summary>
internal sealed class CpioArchive
{
    private const uint Directory = 0x4000, Character = 0x2000, Regular = 0x8000;
    private const string Trailer = "TRAILER!!!";

    private readonly Stream _output;
    private uint _inode;
    private long _written;

    /// <summary>Begins one.</summary>
    internal CpioArchive(Stream output) => _output = output;

    /// <summary>Adds a directory; those above it come first.</summary>
    /// <param name="path">Without a slash in front.</param>
    internal void AddDirectory(string path) => Add(path, Directory | 0x1ED /* 0755 */, 2, 0, 0, default);

    /// <summary>Adds a regular file.</summary>
    internal void AddFile(string path, ReadOnlySpan<byte> content, bool executable = false) =>
        Add(path, Regular | (executable ? 0x1EDu /* 0755 */ : 0x1A4u /* 0644 */), 1, 0, 0, content);

    /// <summary>Adds a character device, for root alone.</summary>
    internal void AddCharacterDevice(string path, uint major, uint minor) => Add(path, Character | 0x180 /* 0600 */, 1, major, minor, default);

    /// <summary>Ends it.</summary>
    internal void Complete()
    {
        _inode = uint.MaxValue; // Becomes 0: the trailer is no file.
        Add(Trailer, 0, 1, 0, 0, default);
        // To whole blocks, as cpio(1) has it.
        Fill(512);
    }

    private void Add(string path, uint mode, uint links, uint deviceMajor, uint deviceMinor, ReadOnlySpan<byte> content)
    {
        byte[] name = Encoding.UTF8.GetBytes(path);
        _inode++;
        ReadOnlySpan<uint> fields =
        [
            _inode, mode, 0, 0, links, 0, (uint)content.Length, 0, 0, deviceMajor, deviceMinor, (uint)name.Length + 1, 0,
        ];
        var header = new StringBuilder("070701", 110);
        foreach (uint field in fields)
            header.Append(field.ToString("X8", CultureInfo.InvariantCulture));
        Write(Encoding.ASCII.GetBytes(header.ToString()));
        Write(name);
        Write([0]);
        Fill(4);
        Write(content);
        Fill(4);
    }

    private void Fill(int unit)
    {
        Span<byte> zeroes = stackalloc byte[512];
        zeroes.Clear();
        Write(zeroes[..(int)((unit - (_written % unit)) % unit)]);
    }

    private void Write(ReadOnlySpan<byte> bytes)
    {
        _output.Write(bytes);
        _written += bytes.Length;
    }
}
