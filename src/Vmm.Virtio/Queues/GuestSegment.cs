namespace Vmm.Virtio.Queues;

/// <summary>
/// A stretch of guest memory in this process, with the layout of C's <c>struct iovec</c>, so that an array of them goes to the kernel as
/// it is. It was checked to lie in RAM when its descriptor was read.
/// </summary>
/// <param name="Host">Where it is mapped.</param>
/// <param name="Length">Bytes, at least 1.</param>
public readonly record struct GuestSegment(nint Host, nuint Length)
{
    /// <summary>Its bytes, shared with a running guest: read each once, then use what was read.</summary>
    public unsafe Span<byte> Bytes(int offset, int length) => new Span<byte>((void*)Host, checked((int)Length)).Slice(offset, length);
}
