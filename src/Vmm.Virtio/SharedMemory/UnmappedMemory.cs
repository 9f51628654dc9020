using Vmm.Core.Bus;

namespace Vmm.Virtio.SharedMemory;

/// <summary>
/// What answers in the place of a region that nothing is behind: ones, and writes are dropped. It is on the bus so that nothing else can be
/// put there.
/// </summary>
internal sealed class UnmappedMemory(SharedMemoryRegion region) : IBusDevice
{
    public void Read(ulong offset, Span<byte> data)
    {
        data.Fill(0xFF);
        region.Counters.CountHoleRead();
        region.Tell(SharedMemoryTrouble.HoleRead);
    }

    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        region.Counters.CountHoleWrite();
        region.Tell(SharedMemoryTrouble.HoleWrite);
    }
}
