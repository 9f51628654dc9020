using Vmm.Core.Memory;
using Vmm.Virtio.Queues;

namespace Vmm.Virtio.Devices.Block;

/// <summary>What a request in flight waits for.</summary>
internal enum BlockPhase : byte
{
    /// <summary>Its data are read or written.</summary>
    Data,

    /// <summary>What was written is made durable; then it is done.</summary>
    Sync,

    /// <summary>The host discards or zeroes a range.</summary>
    Range,

    /// <summary>Zeroes are written to a range.</summary>
    Zeroes,
}

/// <summary>A request from being taken to being given back; one per slot of the queue, reused.</summary>
internal unsafe struct BlockRequest
{
    /// <summary>Null while the slot is free.</summary>
    public DescriptorChain? Chain;

    /// <summary>Where its status goes.</summary>
    public byte* Status;

    /// <summary>Its type, read once.</summary>
    public BlockRequestType Type;

    /// <summary>What it waits for.</summary>
    public BlockPhase Phase;

    /// <summary>Whether it is on the medium before it is done: the cache is off for this request.</summary>
    public bool Durable;

    /// <summary>The buffer that its data go through; -1 for none.</summary>
    public int Bounce;

    /// <summary>Where in the image the rest begins, in bytes.</summary>
    public ulong Offset;

    /// <summary>Bytes left.</summary>
    public ulong Remaining;

    /// <summary>Bytes of data that the driver got, from the start of the writable part on.</summary>
    public ulong Delivered;

    /// <summary>The memory that is left to fill or to write. These are the chain's own entries, cut as it goes on.</summary>
    public GuestSegment* Segments;

    /// <summary>How many.</summary>
    public int SegmentCount;

    /// <summary>The next range of a discard or write zeroes request, and how many there are.</summary>
    public int NextRange, Ranges;

    /// <summary>Begins with the data of the readable or writable part: what is left of it without a head or a tail.</summary>
    public void SetData(GuestSegment* segments, int count, ulong skip, ulong length)
    {
        Segments = segments;
        SegmentCount = count;
        Remaining = length;
        Cut(skip);
        // The tail: a status byte, alone in its segment or not.
        ulong beyond = length;
        for (int i = 0; i < SegmentCount; i++)
        {
            if (beyond <= Segments[i].Length)
            {
                Segments[i] = new GuestSegment(Segments[i].Host, (nuint)beyond);
                SegmentCount = beyond == 0 ? i : i + 1;
                return;
            }
            beyond -= Segments[i].Length;
        }
    }

    /// <summary>So many bytes are done.</summary>
    public void Advance(ulong bytes)
    {
        Offset += bytes;
        Remaining -= bytes;
        Cut(bytes);
    }

    /// <summary>Copies between the front of what is left and a buffer; false where some of the memory has vanished.</summary>
    public readonly bool TryCopy(byte* buffer, int length, bool toGuest)
    {
        for (int i = 0; length > 0; i++)
        {
            int part = (int)Math.Min((ulong)length, Segments[i].Length);
            // Safe: segments are guest memory that was checked, and the buffer has the length that the caller says.
            if (Chain!.MayVanish)
            {
                var guest = (byte*)Segments[i].Host;
                if ((toGuest ? FaultableMemory.Write(guest, new ReadOnlySpan<byte>(buffer, part)) : FaultableMemory.Read(guest, new Span<byte>(buffer, part))) < part)
                    return false;
            }
            else if (toGuest)
                Buffer.MemoryCopy(buffer, (void*)Segments[i].Host, part, part);
            else
                Buffer.MemoryCopy((void*)Segments[i].Host, buffer, part, part);
            buffer += part;
            length -= part;
        }
        return true;
    }

    private void Cut(ulong bytes)
    {
        while (bytes > 0 && SegmentCount > 0)
        {
            if (bytes < Segments->Length)
            {
                *Segments = new GuestSegment(Segments->Host + (nint)bytes, Segments->Length - (nuint)bytes);
                return;
            }
            bytes -= Segments->Length;
            Segments++;
            SegmentCount--;
        }
    }
}
