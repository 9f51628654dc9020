using System.Buffers;
using System.Buffers.Binary;

namespace Vmm.Core.Boot.Acpi;

/// <summary>
/// Writes ACPI Machine Language (ACPI 6.5 §20) front to back into one pooled buffer. What has a package length is a block:
/// <c>using (writer.Device("COM1")) { … }</c>. Operators are written before their operands, as AML has them:
/// <c>writer.Add().Arg(0).Integer(1).Local(0)</c>.
/// </summary>
/// <remarks>
/// The content is the program's own: a wrong name or an unbalanced block is a mistake of the caller and throws
/// <see cref="ArgumentException"/> or <see cref="InvalidOperationException"/>. Not thread-safe.
/// </remarks>
public sealed partial class AmlWriter : IDisposable
{
    private const byte ExtendedPrefix = 0x5B;

    private byte[] _buffer;
    private int _length;
    private int _depth;

    /// <summary>Makes an empty writer.</summary>
    /// <param name="capacity">Bytes to begin with; it grows as needed.</param>
    public AmlWriter(int capacity = 4096) => _buffer = ArrayPool<byte>.Shared.Rent(capacity);

    /// <summary>What has been written. Package lengths are right once every block is closed; valid until the next write.</summary>
    public ReadOnlySpan<byte> Written => _buffer.AsSpan(0, _length);

    /// <summary>The number of bytes written.</summary>
    public int Length => _length;

    /// <summary>How many blocks are open.</summary>
    public int OpenBlocks => _depth;

    /// <summary>Gives the buffer back; the writer is empty afterwards.</summary>
    public void Dispose()
    {
        byte[] buffer = _buffer;
        _buffer = [];
        _length = 0;
        if (buffer.Length != 0)
            ArrayPool<byte>.Shared.Return(buffer);
    }

    /// <summary>A NameString (§20.2.2): <c>\</c>, any number of <c>^</c>, and segments of 1 to 4 characters between dots.</summary>
    /// <exception cref="ArgumentException">A segment is empty, too long, or has other characters than A-Z, 0-9 and _.</exception>
    public AmlWriter Name(ReadOnlySpan<char> path)
    {
        int at = 0;
        if (path.StartsWith('\\'))
        {
            Byte((byte)'\\');
            at = 1;
        }
        else
        {
            for (; at < path.Length && path[at] == '^'; at++)
                Byte((byte)'^');
        }
        ReadOnlySpan<char> rest = path[at..];
        if (rest.IsEmpty)
        {
            if (at == 0)
                throw new ArgumentException("A name is empty.", nameof(path));
            return Byte(0x00); // NullName
        }
        int segments = rest.Count('.') + 1;
        if (segments == 2)
            Byte(0x2E); // DualNamePrefix
        else if (segments > 2)
            Byte(0x2F).Byte(checked((byte)segments)); // MultiNamePrefix
        foreach (Range segment in rest.Split('.'))
            NameSegment(rest[segment]);
        return this;
    }

    /// <summary>ComputationalData for an integer (§20.2.3), in its shortest form. Tables of revision 2 have 64-bit integers.</summary>
    public AmlWriter Integer(ulong value)
    {
        if (value <= 1)
            return Byte((byte)value); // ZeroOp and OneOp are most of them.
        Span<byte> encoded = stackalloc byte[9];
        return Bytes(encoded[..EncodeInteger(value, encoded)]);
    }

    /// <summary>A string (§20.2.3) of ASCII characters other than NUL.</summary>
    public AmlWriter String(ReadOnlySpan<char> value)
    {
        Byte(0x0D);
        foreach (char c in value)
        {
            if (c is '\0' or > '\x7F')
                throw new ArgumentException("An AML string holds ASCII characters only.", nameof(value));
            Byte((byte)c);
        }
        return Byte(0x00);
    }

    /// <summary>A buffer with its content (§20.2.5.4, DefBuffer).</summary>
    public AmlWriter Buffer(ReadOnlySpan<byte> content)
    {
        using (BufferBlock())
            Bytes(content);
        return this;
    }

    /// <summary>A buffer whose content is what is written with <see cref="Bytes"/> in the block.</summary>
    public AmlBlock BufferBlock()
    {
        Byte(0x11);
        return Open(AmlBlockKind.Buffer);
    }

    /// <summary>A package (§20.2.5.4, DefPackage) of data objects or names.</summary>
    /// <param name="count">How many elements are written in the block, 0 to 255.</param>
    public AmlBlock Package(int count)
    {
        Byte(0x12);
        AmlBlock block = Open(AmlBlockKind.Plain);
        Byte(checked((byte)count));
        return block;
    }

    /// <summary>The compressed form of an EISA identifier such as "PNP0501" (§19.6.37): an integer.</summary>
    /// <exception cref="ArgumentException">It is not three letters A-Z and four hexadecimal digits.</exception>
    public AmlWriter EisaId(ReadOnlySpan<char> id)
    {
        if (id.Length != 7 || id[..3].ContainsAnyExceptInRange('A', 'Z'))
            throw new ArgumentException($"\"{id}\" is not an EISA identifier.", nameof(id));
        uint product = 0;
        foreach (char c in id[3..])
        {
            if (!char.IsAsciiHexDigitUpper(c))
                throw new ArgumentException($"\"{id}\" is not an EISA identifier.", nameof(id));
            product = product << 4 | (uint)(c <= '9' ? c - '0' : c - 'A' + 10);
        }
        uint vendor = (uint)(id[0] - '@') << 10 | (uint)(id[1] - '@') << 5 | (uint)(id[2] - '@');
        return Integer(BinaryPrimitives.ReverseEndianness(vendor << 16 | product));
    }

    /// <summary>A UUID as a buffer of 16 bytes, in the order of ToUUID (§19.6.142), which is also that of a .NET Guid.</summary>
    public AmlWriter Uuid(Guid value)
    {
        Span<byte> bytes = stackalloc byte[16];
        value.TryWriteBytes(bytes);
        return Buffer(bytes);
    }

    /// <summary>Raw bytes, for the content of a buffer.</summary>
    public AmlWriter Bytes(ReadOnlySpan<byte> content)
    {
        content.CopyTo(Grow(content.Length));
        return this;
    }

    private AmlWriter Byte(byte value)
    {
        if (_length == _buffer.Length)
            Grow(1)[0] = value;
        else
            _buffer[_length++] = value;
        return this;
    }

    private AmlWriter Extended(byte value) => Byte(ExtendedPrefix).Byte(value);

    private void NameSegment(ReadOnlySpan<char> segment)
    {
        if (segment.Length is 0 or > 4 || char.IsAsciiDigit(segment[0]))
            throw new ArgumentException($"\"{segment}\" is not a segment of an ACPI name.", nameof(segment));
        Span<byte> bytes = Grow(4);
        bytes.Fill((byte)'_');
        for (int i = 0; i < segment.Length; i++)
        {
            char c = segment[i];
            if (!char.IsAsciiLetterUpper(c) && !char.IsAsciiDigit(c) && c != '_')
                throw new ArgumentException($"\"{segment}\" is not a segment of an ACPI name.", nameof(segment));
            bytes[i] = (byte)c;
        }
    }

    private Span<byte> Grow(int count)
    {
        if (count > _buffer.Length - _length)
        {
            byte[] larger = ArrayPool<byte>.Shared.Rent(Math.Max(_buffer.Length * 2, checked(_length + count)));
            Written.CopyTo(larger);
            byte[] old = _buffer;
            _buffer = larger;
            if (old.Length != 0)
                ArrayPool<byte>.Shared.Return(old);
        }
        Span<byte> added = _buffer.AsSpan(_length, count);
        _length += count;
        return added;
    }

    private AmlBlock Open(AmlBlockKind kind) => new(this, kind, _length, ++_depth);

    /// <summary>Ends a block: what precedes its content depends on the content's length, so the content moves up to make room.</summary>
    internal void Close(AmlBlockKind kind, int start, int depth)
    {
        if (depth != _depth)
            throw new InvalidOperationException("AML blocks are closed in another order than they nest.");
        if (kind == AmlBlockKind.ResourceTemplate)
            Byte(0x79).Byte(0x00); // End tag (§6.4.2.9); checksum 0 counts as correct.
        _depth--;

        if (kind == AmlBlockKind.Plain && _length - start < 0x3F)
        {
            // Most blocks are short.
            Grow(1);
            _buffer.AsSpan(start, _length - start - 1).CopyTo(_buffer.AsSpan(start + 1));
            _buffer[start] = (byte)(_length - start);
            return;
        }

        // A PkgLength of at most 4 bytes and a buffer's size, an integer, of at most 9.
        Span<byte> head = stackalloc byte[13];
        int content = _length - start;
        Span<byte> size = stackalloc byte[9];
        int sizeLength = kind == AmlBlockKind.Plain ? 0 : EncodeInteger((ulong)content, size);
        int headLength = EncodePackageLength(content + sizeLength, head, countsItself: true);
        size[..sizeLength].CopyTo(head[headLength..]);
        headLength += sizeLength;

        Grow(headLength);
        _buffer.AsSpan(start, content).CopyTo(_buffer.AsSpan(start + headLength));
        head[..headLength].CopyTo(_buffer.AsSpan(start));
    }

    /// <summary>
    /// Encodes a PkgLength (§20.2.4): up to 63 in one byte; more in two to four, four bits in the first and eight in each that
    /// follows, at most 2^28 - 1.
    /// </summary>
    /// <param name="length">What follows the PkgLength, in bytes; for a field unit its width in bits.</param>
    /// <param name="destination">At least 4 bytes.</param>
    /// <param name="countsItself">Whether the encoded value covers the PkgLength too, as it does except in field lists.</param>
    /// <returns>The bytes used.</returns>
    internal static int EncodePackageLength(int length, Span<byte> destination, bool countsItself)
    {
        int bytes = 1;
        int value = length + (countsItself ? 1 : 0);
        if (value > 0x3F)
        {
            do
            {
                bytes++;
                value = checked(length + (countsItself ? bytes : 0));
            }
            while (bytes < 4 && value >> (4 + 8 * (bytes - 1)) != 0);
            if (value >> 28 != 0)
                throw new InvalidOperationException($"An AML block of {length} bytes is longer than a package length can tell.");
            destination[0] = (byte)((bytes - 1) << 6 | value & 0x0F);
            for (int i = 1; i < bytes; i++)
                destination[i] = (byte)(value >> (8 * i - 4));
            return bytes;
        }
        destination[0] = (byte)value;
        return 1;
    }

    private static int EncodeInteger(ulong value, Span<byte> destination)
    {
        switch (value)
        {
            case 0 or 1 or ulong.MaxValue: // ZeroOp, OneOp, OnesOp
                destination[0] = (byte)value;
                return 1;
            case <= byte.MaxValue:
                destination[0] = 0x0A;
                destination[1] = (byte)value;
                return 2;
            case <= ushort.MaxValue:
                destination[0] = 0x0B;
                BinaryPrimitives.WriteUInt16LittleEndian(destination[1..], (ushort)value);
                return 3;
            case <= uint.MaxValue:
                destination[0] = 0x0C;
                BinaryPrimitives.WriteUInt32LittleEndian(destination[1..], (uint)value);
                return 5;
            default:
                destination[0] = 0x0E;
                BinaryPrimitives.WriteUInt64LittleEndian(destination[1..], value);
                return 9;
        }
    }
}
