using System.Numerics;
using Vmm.Core.Memory;

namespace Vmm.Virtio.Tests.Driver;

/// <summary>Hands out guest memory to a test's driver and takes it back, in sizes of powers of two.</summary>
public sealed class GuestArena(GuestMemory memory, ulong start, ulong end)
{
    private readonly Stack<ulong>?[] _free = new Stack<ulong>?[64];
    private ulong _next = start;

    /// <summary>The memory that it hands out of.</summary>
    public GuestMemory Memory => memory;

    /// <summary>Memory of at least some bytes, not cleared, aligned to its size's power of two up to a page.</summary>
    public ulong Allocate(ulong length)
    {
        int order = Order(length);
        if (_free[order] is { Count: > 0 } stack)
            return stack.Pop();
        ulong align = Math.Min(1UL << order, 4096);
        ulong address = (_next + align - 1) & ~(align - 1);
        if (address + (1UL << order) > end)
            throw new InvalidOperationException("The test's guest has no memory left; give the GuestDriver more.");
        _next = address + (1UL << order);
        return address;
    }

    /// <summary>Takes back what was allocated with the same length.</summary>
    public void Free(ulong address, ulong length) => (_free[Order(length)] ??= new()).Push(address);

    private static int Order(ulong length) => Math.Max(6, BitOperations.Log2(Math.Max(length, 2) - 1) + 1);
}
