namespace Vmm.Core.Bus;

/// <summary>
/// Something that answers on a range of a bus. Called on vCPU threads, several at a time: an implementation takes its own
/// lock, allocates nothing and never throws for what a guest does.
/// </summary>
public interface IBusDevice
{
    /// <summary>
    /// A guest's read of <paramref name="data"/>.Length bytes (1 to 8; any size the instruction had, aligned or not) at
    /// <paramref name="offset"/> from the start of the range. Bytes nobody answers for are set to 0xFF by the device.
    /// </summary>
    void Read(ulong offset, Span<byte> data);

    /// <summary>A guest's write, with the same rules; what is not understood is dropped.</summary>
    void Write(ulong offset, ReadOnlySpan<byte> data);
}
