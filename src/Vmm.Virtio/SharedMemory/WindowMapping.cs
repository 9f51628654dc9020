using Vmm.Core.Memory;

namespace Vmm.Virtio.SharedMemory;

/// <summary>One mapping in a <see cref="SharedMemoryWindow"/>, and its place in the window's <see cref="MappingTree"/>.</summary>
internal sealed class WindowMapping(IGuestMemorySlots slots, nint host, ulong offset, ulong length, ulong mappedLength, bool readOnly)
    : GuestMapping(slots, host, mappedLength, readOnly)
{
    /// <summary>From the start of the window.</summary>
    internal ulong Offset => offset;

    /// <summary>Bytes that were asked for; an unmap must name the same.</summary>
    internal ulong Length => length;

    /// <summary>The first offset past it, whole pages.</summary>
    internal ulong End => offset + MappedLength;

    /// <summary>Whether its pages can vanish: it is a file that can be truncated.</summary>
    internal bool CanVanish { get; init; }

    /// <summary>Whether it was unmapped.</summary>
    internal bool IsRemoved { get; set; }

    internal uint Priority { get; set; }

    internal WindowMapping? Left { get; set; }

    internal WindowMapping? Right { get; set; }
}
