using System.Buffers.Binary;
using System.IO.Compression;
using Vmm.Core.Interop;

namespace Vmm.Core.Boot;

/// <summary>How a bzImage's payload is packed.</summary>
internal enum PayloadCompression
{
    Gzip,
    Xz,
    Zstd,
    Lz4,
}

/// <summary>
/// The packed kernel inside a bzImage (boot.rst, payload_offset): a compressed vmlinux, then its unpacked size in four bytes
/// (which for gzip are the last of the format itself).
/// </summary>
internal sealed class KernelPayload
{
    private const int SizeField = 4;
    private const uint Lz4LegacyMagic = 0x184C2102;
    private const int Lz4LegacyBlock = 8 << 20;

    // The kernel's build uses a dictionary of at most 128 MiB; more than this is no kernel's.
    private const ulong XzMemoryLimit = 256 << 20;

    private KernelPayload(PayloadCompression compression, ulong offset, ulong length, uint unpackedLength)
    {
        Compression = compression;
        Offset = offset;
        Length = length;
        UnpackedLength = unpackedLength;
    }

    public PayloadCompression Compression { get; }

    /// <summary>Where the packed bytes begin in the file.</summary>
    public ulong Offset { get; }

    /// <summary>The packed bytes, without a size that is not part of their format.</summary>
    public ulong Length { get; }

    /// <summary>What they unpack to, in bytes, as the file says it; at least 1.</summary>
    public uint UnpackedLength { get; }

    /// <summary>Recognises a payload.</summary>
    /// <param name="file">The bzImage.</param>
    /// <param name="header">Its validated header.</param>
    /// <param name="reason">Why it cannot be unpacked here, as the end of a sentence ("…, because …").</param>
    /// <returns>Null where it cannot be unpacked.</returns>
    public static KernelPayload? Find(IKernelFile file, BzImageHeader header, out string reason)
    {
        reason = "";
        if (header.PayloadLength < 16)
        {
            reason = "its setup header names no payload";
            return null;
        }
        Span<byte> head = stackalloc byte[6];
        file.Read(header.PayloadOffset, head);
        PayloadCompression? compression = head switch
        {
            [0x1F, 0x8B, ..] => PayloadCompression.Gzip,
            [0xFD, (byte)'7', (byte)'z', (byte)'X', (byte)'Z', 0] => PayloadCompression.Xz,
            [0x28, 0xB5, 0x2F, 0xFD, ..] => PayloadCompression.Zstd,
            [0x02, 0x21, 0x4C, 0x18, ..] => PayloadCompression.Lz4,
            _ => null,
        };
        if (compression == null)
        {
            reason = head switch
            {
                [(byte)'B', (byte)'Z', (byte)'h', ..] => "its payload is packed by bzip2",
                [0x5D, 0, 0, ..] => "its payload is packed by lzma",
                [0x89, (byte)'L', (byte)'Z', (byte)'O', ..] => "its payload is packed by lzo",
                [0x7F, (byte)'E', (byte)'L', (byte)'F', ..] => "its payload is not packed",
                _ => $"its payload is packed in an unknown way (it begins with {Convert.ToHexString(head)})",
            };
            return null;
        }
        if (MissingLibrary(compression.Value) is { } library)
        {
            reason = $"unpacking it needs {library}, which this system does not have";
            return null;
        }
        Span<byte> size = stackalloc byte[SizeField];
        file.Read(header.PayloadOffset + header.PayloadLength - SizeField, size);
        uint unpacked = BinaryPrimitives.ReadUInt32LittleEndian(size);
        if (unpacked is 0 or > BootLayout.MaximumUnpackedSize)
        {
            reason = $"its payload claims to unpack to {unpacked} bytes, which is not between 1 and {BootLayout.MaximumUnpackedSize}";
            return null;
        }
        ulong length = compression == PayloadCompression.Gzip ? header.PayloadLength : header.PayloadLength - SizeField;
        return new KernelPayload(compression.Value, header.PayloadOffset, length, unpacked);
    }

    /// <summary>
    /// Unpacks into <see cref="UnpackedLength"/> bytes that the caller owns, and nothing beyond. The packed bytes are read into
    /// memory of this process first, not mapped: a file that someone truncates meanwhile must not end the process by a signal.
    /// </summary>
    /// <returns>Null, or why it failed (then the destination holds anything), as the end of a sentence.</returns>
    public unsafe string? Unpack(IKernelFile file, byte* destination)
    {
        using var packed = new NativeBuffer(Length);
        packed.Fill(file, Offset);
        return Compression switch
        {
            PayloadCompression.Gzip => Gzip(packed.Pointer, destination),
            PayloadCompression.Xz => Xz(packed.Pointer, destination),
            PayloadCompression.Zstd => Zstandard(packed.Pointer, destination),
            _ => Lz4Legacy(packed.Pointer, destination),
        };
    }

    private static string? MissingLibrary(PayloadCompression compression) => compression switch
    {
        PayloadCompression.Lz4 when !Lz4.IsPresent => Lz4.soname,
        PayloadCompression.Zstd when !Zstd.IsPresent => Zstd.soname,
        PayloadCompression.Xz when !Lzma.IsPresent => Lzma.soname,
        _ => null,
    };

    private unsafe string? Gzip(byte* packed, byte* destination)
    {
        try
        {
            // Safe: both ranges are owned for the call, with these lengths.
            using var source = new UnmanagedMemoryStream(packed, (long)Length);
            using var gzip = new GZipStream(source, CompressionMode.Decompress);
            gzip.ReadExactly(new Span<byte>(destination, (int)UnpackedLength));
            return gzip.ReadByte() < 0 ? null : "it unpacks to more than its size says";
        }
        catch (Exception e) when (e is InvalidDataException or IOException)
        {
            return "its gzip data are corrupt: " + e.Message.ReplaceLineEndings(" ").TrimEnd('.');
        }
    }

    private unsafe string? Xz(byte* packed, byte* destination)
    {
        ulong limit = XzMemoryLimit;
        nuint inPosition = 0;
        nuint outPosition = 0;
        int result = Lzma.lzma_stream_buffer_decode(
            &limit, 0, null, packed, &inPosition, (nuint)Length, destination, &outPosition, UnpackedLength);
        if (result != Lzma.LZMA_OK)
            return $"its xz data are corrupt: liblzma's error {result}";
        return WrongLength(outPosition);
    }

    private unsafe string? Zstandard(byte* packed, byte* destination)
    {
        nuint result = Zstd.ZSTD_decompress(destination, UnpackedLength, packed, (nuint)Length);
        return Zstd.ZSTD_isError(result) ? $"its zstd data are corrupt: {Zstd.ZSTD_getErrorName(result)}" : WrongLength(result);
    }

    /// <summary>The format of <c>lz4 -l</c>: a magic number, then blocks with their packed length, each of at most 8 MiB unpacked.</summary>
    private unsafe string? Lz4Legacy(byte* packed, byte* destination)
    {
        ulong done = 0;
        ulong position = 4;
        while (position < Length)
        {
            if (Length - position < 4)
                return "its lz4 data are truncated";
            uint block = BinaryPrimitives.ReadUInt32LittleEndian(new ReadOnlySpan<byte>(packed + position, 4));
            position += 4;
            // A further magic number begins a further frame.
            if (block == Lz4LegacyMagic)
                continue;
            if (block == 0 || block > Length - position || block > int.MaxValue)
                return $"its lz4 data are corrupt: a block of {block} bytes at {position} of {Length}";
            int room = (int)Math.Min(UnpackedLength - done, Lz4LegacyBlock);
            // Safe: source and destination ranges were checked just above; the function keeps to them.
            int written = Lz4.LZ4_decompress_safe(packed + position, destination + done, (int)block, room);
            if (written < 0)
                return $"its lz4 data are corrupt: in the block at {position} of {Length}";
            position += block;
            done += (uint)written;
        }
        return WrongLength((nuint)done);
    }

    private string? WrongLength(nuint length) =>
        length == UnpackedLength ? null : $"it unpacks to {length} bytes and not to the {UnpackedLength} that it says";
}
