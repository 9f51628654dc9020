using Vmm.Core.Bus;
using Vmm.Core.Interop;
using Vmm.Core.Memory;

namespace Vmm.Virtio.SharedMemory;

/// <summary>
/// What answers in the place of a region for accesses that no memory slot takes. Where something is mapped all the same (its slot is just
/// being changed, or the host refused one), it does what the slot would have done; elsewhere reads give ones and writes are dropped.
/// </summary>
/// <param name="region">Whose.</param>
/// <param name="owner">What the memory is a part of; nothing is touched once it is disposed of.</param>
/// <param name="start">The region's first byte.</param>
internal sealed unsafe class HostBackedMemory(SharedMemoryRegion region, HostMapping owner, byte* start) : IBusDevice
{
    private readonly byte* _start = start;

    public void Read(ulong offset, Span<byte> data)
    {
        int there = Copy(offset, data, default);
        if (there == data.Length)
            return;
        data[there..].Fill(0xFF);
        region.Counters.CountHoleRead();
        region.Tell(SharedMemoryTrouble.HoleRead);
    }

    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        int there = Copy(offset, default, data);
        if (there == data.Length)
            return;
        if (region.IsReadOnly(offset + (ulong)there))
        {
            region.Counters.CountReadOnlyWrite();
            region.Tell(SharedMemoryTrouble.ReadOnlyWrite);
        }
        else
        {
            region.Counters.CountHoleWrite();
            region.Tell(SharedMemoryTrouble.HoleWrite);
        }
    }

    private int Copy(ulong offset, Span<byte> to, ReadOnlySpan<byte> from)
    {
        if (offset >= region.Length || (ulong)(to.Length + from.Length) > region.Length - offset)
            return 0;
        bool held = false;
        try
        {
            owner.DangerousAddRef(ref held);
            // Safe: the range is the owner's, which is held, and the calls fail where nothing is mapped in it.
            return to.IsEmpty ? FaultableMemory.Write(_start + offset, from) : FaultableMemory.Read(_start + offset, to);
        }
        catch (ObjectDisposedException)
        {
            return 0;
        }
        finally
        {
            if (held)
                owner.DangerousRelease();
        }
    }
}
