using Vmm.Core.Interop;
using Vmm.Core.Memory;
using static Vmm.Core.Interop.LibC;

namespace Vmm.Virtio.Tests.Hostile;

/// <summary>
/// Guest RAM whose every range has pages without access on both sides: whoever leaves it ends the process. Three ranges, of which the
/// first two touch in the guest but not in this process.
/// </summary>
public sealed unsafe class GuardedRam : IDisposable
{
    /// <summary>Bytes of the first range, which begins at 0.</summary>
    public const ulong LowBytes = 0x40000;

    /// <summary>The end of the second range.</summary>
    public const ulong LowEnd = LowBytes + 0x10000;

    /// <summary>Where the third range begins.</summary>
    public const ulong HighStart = 1UL << 32;

    private const ulong Guard = 1 << 20;

    private static readonly (ulong Start, ulong Length)[] s_ranges = [(0, LowBytes), (LowBytes, LowEnd - LowBytes), (HighStart, 0x10000)];

    private readonly HostMapping _mapping;

    /// <summary>Maps it.</summary>
    public GuardedRam()
    {
        ulong size = Guard;
        foreach ((ulong _, ulong length) in s_ranges)
            size += length + Guard;
        _mapping = HostMapping.TryMap((nuint)size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)
            ?? throw new InvalidOperationException("No address space for the test's RAM.");
        var regions = new List<GuestRegion>();
        ulong offset = Guard;
        foreach ((ulong start, ulong length) in s_ranges)
        {
            byte* at = _mapping.Address + offset;
            // Safe: inside this object's own mapping.
            if (mmap(at, (nuint)length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
                throw new InvalidOperationException("No memory for the test's RAM.");
            regions.Add(new GuestRegion(start, length, (nint)at, -1, 0));
            offset += length + Guard;
        }
        Memory = new GuestMemory(regions);
    }

    /// <summary>Checked access to it.</summary>
    public GuestMemory Memory { get; }

    /// <summary>Clears the rings' part of it, and what else cases write most.</summary>
    public void Clear()
    {
        _ = Memory.TryGetSpan(0, 0x20000, out Span<byte> span);
        span.Clear();
    }

    /// <inheritdoc/>
    public void Dispose() => _mapping.Dispose();
}
