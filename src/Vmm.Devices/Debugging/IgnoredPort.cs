using Vmm.Core.Bus;

namespace Vmm.Devices.Debugging;

/// <summary>
/// A range that is known and does nothing, so that it is not counted as unclaimed: port 0xED, which Linux writes to for a
/// delay (io_delay=0xed) where port 0x80 is in use. Writes are dropped and reads give ones.
/// </summary>
public sealed class IgnoredPort : IBusDevice
{
    /// <summary>The alternative delay port.</summary>
    public const ushort DelayPort = 0xED;

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data) => data.Fill(0xFF);

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
    }
}
