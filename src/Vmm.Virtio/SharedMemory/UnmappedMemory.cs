using Vmm.Core.Bus;

namespace Vmm.Virtio.SharedMemory;

/// <summary>
/// What answers in a place for shared memory where nothing is mapped: ones, and writes are dropped. It is on the bus so that nothing else
/// can be put there.
/// </summary>
internal sealed class UnmappedMemory : IBusDevice
{
    public void Read(ulong offset, Span<byte> data) => data.Fill(0xFF);

    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
    }
}
