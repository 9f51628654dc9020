namespace Vmm.VhostUserBackEnd.Rings;

/// <summary>Bytes of the guest's that a descriptor names; valid while its chain is served.</summary>
public readonly unsafe struct GuestBytes
{
    private readonly byte* _start;

    internal GuestBytes(byte* start, ulong guestAddress, int length)
    {
        _start = start;
        GuestAddress = guestAddress;
        Length = length;
    }

    public ulong GuestAddress { get; }

    public int Length { get; }

    public Span<byte> Span => new(_start, Length);
}

/// <summary>A descriptor chain: what the driver wrote for the device, then the room for its answer (VIRTIO 1.3 §2.7).</summary>
public sealed class Chain
{
    internal Chain(ushort head) => Head = head;

    /// <summary>The index of its first descriptor.</summary>
    public ushort Head { get; }

    public List<GuestBytes> Readable { get; } = [];

    public List<GuestBytes> Writable { get; } = [];

    public int ReadableLength => Total(Readable);

    public int WritableLength => Total(Writable);

    /// <summary>Copies what the driver wrote, from a byte on; the number of bytes is less than asked for only where the chain ends.</summary>
    public int Read(int offset, Span<byte> data) => Copy(Readable, offset, data);

    /// <summary>All that the driver wrote.</summary>
    public byte[] ReadAll()
    {
        var data = new byte[ReadableLength];
        Read(0, data);
        return data;
    }

    /// <summary>Copies into the room for the answer, from a byte on; the number of bytes is less than asked for only where the chain ends.</summary>
    public int Write(int offset, ReadOnlySpan<byte> data)
    {
        int done = 0;
        foreach (GuestBytes part in Writable)
        {
            if (offset >= part.Length)
            {
                offset -= part.Length;
                continue;
            }
            int count = Math.Min(part.Length - offset, data.Length - done);
            data.Slice(done, count).CopyTo(part.Span[offset..]);
            done += count;
            offset = 0;
            if (done == data.Length)
                break;
        }
        return done;
    }

    private static int Copy(List<GuestBytes> parts, int offset, Span<byte> data)
    {
        int done = 0;
        foreach (GuestBytes part in parts)
        {
            if (offset >= part.Length)
            {
                offset -= part.Length;
                continue;
            }
            int count = Math.Min(part.Length - offset, data.Length - done);
            part.Span.Slice(offset, count).CopyTo(data[done..]);
            done += count;
            offset = 0;
            if (done == data.Length)
                break;
        }
        return done;
    }

    private static int Total(List<GuestBytes> parts)
    {
        int total = 0;
        foreach (GuestBytes part in parts)
            total += part.Length;
        return total;
    }
}
