using Vmm.Core.Bus;

namespace Vmm.Virtio.SharedMemory;

/// <summary>
/// What answers for a region in the place that the layout keeps for it, where it is until a transport puts it elsewhere; then nothing is
/// there.
/// </summary>
internal sealed class PreferredPlace(SharedMemoryRegion region) : IBusDevice
{
    private readonly IBusDevice _behind = region.Behind;

    public void Read(ulong offset, Span<byte> data)
    {
        if (region.IsAtPreferredAddress)
            _behind.Read(offset, data);
        else
            data.Fill(0xFF);
    }

    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (region.IsAtPreferredAddress)
            _behind.Write(offset, data);
    }
}
